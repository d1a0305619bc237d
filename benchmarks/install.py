"""What the service core costs to install on top of torch: packages and megabytes, in a fresh environment.

Run it as `python -m benchmarks.install`; it needs a package index. Exit 1 if the budget is exceeded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_PACKAGES = 35
MOST_BYTES = 100_000_000
_IGNORED = ("pip", "setuptools")
"""What a new environment holds before anything is installed."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What the core adds to torch and its own dependencies: packages by name, and bytes on the disk."""

    packages: tuple[str, ...]
    bytes: int
    seconds: float

    @property
    def within_budget(self) -> bool:
        """Whether both limits are kept."""
        return len(self.packages) <= MOST_PACKAGES and self.bytes <= MOST_BYTES


def measure() -> Weight:
    """Install torch, then the core, and compare; about a minute."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        _install(python, "torch")
        before = _snapshot(python, environment)
        began = time.perf_counter()
        _install(python, str(ROOT))
        seconds = time.perf_counter() - began
        after = _snapshot(python, environment)
    return Weight(tuple(sorted(after[0] - before[0])), after[1] - before[1], seconds)


def _install(python: Path, *what: str) -> None:
    constraints = str(ROOT / "constraints.txt")
    # Compiled files are left out of both sides: an image is built without them.
    options = ("--quiet", "--no-compile", "--disable-pip-version-check", "--constraint", constraints)
    _run(python, "-m", "pip", "install", *options, *what)


def _snapshot(python: Path, environment: Path) -> tuple[set[str], int]:
    """The names of the packages in an environment, and the bytes of all its files."""
    listed = json.loads(_run(python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"))
    names = {package["name"] for package in listed if package["name"] not in _IGNORED}
    files = (path for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
    return names, sum(path.stat().st_size for path in files if path.suffix != ".pyc")


def _run(python: Path, *arguments: str) -> str:
    command: Sequence[str] = [str(python), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def main() -> None:
    """Measure, print, and say by the exit code whether the budget is kept."""
    weight = measure()
    print(json.dumps({**asdict(weight), "count": len(weight.packages)}, indent=2))
    sys.exit(not weight.within_budget)


if __name__ == "__main__":
    main()
