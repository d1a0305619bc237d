"""Imported once by the parent of all local site processes, so that each fork starts with its libraries loaded.

Imports only: no tensor is computed here, because a process that has run torch's thread pools must not fork.
"""

import concord.apps.combined  # noqa: F401
