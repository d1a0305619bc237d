"""Where Prometheus and promtool are: on the PATH, or else fetched once from the system's package. For tests only.

`python -m tools.get_prometheus` prints the path of the server, `python -m tools.get_prometheus promtool` the other's.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tools.debian import unpack
from tools.kept import TOOLS, keep, scratch

PACKAGE = "prometheus"
FOLDER = TOOLS / "prometheus-debian"
NAMES = ("prometheus", "promtool")


def find(tool: str = "prometheus") -> Path:
    """The path of `prometheus` or `promtool`; SystemExit says what to install if it cannot be had."""
    if tool not in NAMES:
        raise SystemExit(f"'{tool}' is none of {' and '.join(NAMES)}")
    on_path = shutil.which(tool)
    if on_path:
        return Path(on_path)
    if not FOLDER.exists():
        with scratch() as directory:
            keep(unpack(PACKAGE, directory) / "usr" / "bin", FOLDER)
    return FOLDER / tool


if __name__ == "__main__":
    print(find(*sys.argv[1:2]))
