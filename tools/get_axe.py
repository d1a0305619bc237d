"""Where axe-core is, the checker of accessibility: fetched once, checked against its digest. For tests only."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tools.kept import TOOLS, keep, scratch
from tools.npm import Package, fetch

PACKAGE = Package(
    "axe-core",
    "4.14.1",
    "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
)
SCRIPT = TOOLS / f"axe-{PACKAGE.version}.min.js"


def find() -> Path:
    """The script's path; SystemExit if it cannot be had."""
    if not SCRIPT.exists():
        with scratch() as directory:
            with tarfile.open(fetch(PACKAGE, directory, "axe-core")) as archive:
                archive.extract("package/axe.min.js", directory, filter="data")
            keep(directory / "package" / "axe.min.js", SCRIPT)
    return SCRIPT
