"""Imported once by the parent of all local site processes, so that each fork starts with its libraries loaded.

Imports only: no tensor is computed here, because a process that has run torch's thread pools must not fork.
"""

import contextlib

import concord.apps.combined  # noqa: F401

with contextlib.suppress(ImportError):  # an optional group; the task itself says so if it is needed
    import sklearn.datasets  # noqa: F401
