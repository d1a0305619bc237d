"""Where tools that were fetched are kept, and how one comes there whole or not at all. Knows no registry."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOOLS = Path(__file__).parents[1] / "out" / "tools"
"""Where what was fetched is kept."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the same file system as TOOLS that goes with whatever is left in it."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as directory:
        yield Path(directory)


def keep(made: Path, place: Path) -> None:
    """Move a finished folder to its place, unless another run was first; so a torn one is never taken for whole."""
    if not place.exists():
        made.rename(place)
