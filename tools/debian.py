"""Fetches a package of Debian (or of a system made from it) and unpacks it. Runs none of it, and installs nothing.

`apt-get` checks what comes against the signed lists of the system, so that no digest stands here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

_NEEDED = ("apt-get", "dpkg-deb")


def unpack(package: str, directory: Path) -> Path:
    """The folder with the package's files, laid out as from the root; SystemExit says what to install otherwise."""
    found = [shutil.which(name) for name in _NEEDED]
    if sys.platform != "linux" or None in found:
        raise SystemExit(
            f"{package} is not on the PATH, nor {' and '.join(_NEEDED)}, which fetch it; install {package}"
        )
    apt, dpkg = (str(path) for path in found)
    download = [apt, "download", package]
    answer = subprocess.run(download, cwd=directory, capture_output=True, text=True, check=False)  # noqa: S603 - our words
    archives = list(directory.glob("*.deb"))
    if answer.returncode or not archives:
        raise SystemExit(f"{package} is not on the PATH and cannot be fetched; install it.\n{answer.stderr.strip()}")
    folder = directory / "root"
    subprocess.run([dpkg, "--extract", str(archives[0]), str(folder)], check=True)  # noqa: S603 - our own words
    return folder
