"""Fetches a package of the npm registry as one archive, checked against a pinned digest. Runs none of it."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Package:
    """`integrity` is the registry's: sha512- and the digest of the archive in base64."""

    name: str
    version: str
    integrity: str


def fetch(package: Package, directory: Path, needed_for: str) -> Path:
    """The package's archive in the directory; SystemExit says what to install if it cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"{needed_for} is not on the PATH; install it, or npm so that it can be fetched")
    wanted = f"{package.name}@{package.version}"
    command = [npm, "pack", wanted, "--silent", "--pack-destination", str(directory)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - npm, with our own words
    (archive,) = directory.glob("*.tgz")
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.integrity:
        raise SystemExit(f"{package.name} {package.version} is not what it was: {found}")
    return archive
