"""A step of the image's build: import what processes import, so that Python leaves its bytecode beside it.

Bytecode of everything would be 150 MB, most of it never read; without any, each process would compile for seconds at
every start, because in a read-only image nothing can be kept.
"""

from contextlib import suppress
from importlib import import_module
from pkgutil import walk_packages

import concord
from concord.cli.main import main

for module in walk_packages(concord.__path__, "concord."):
    with suppress(ImportError):  # of an optional group that this image goes without
        import_module(module.name)
with suppress(ImportError):
    import_module("sklearn.datasets").load_digits()
main(["--help"])
