"""A wall clock that the harness can move: `time.time` plus what a file says. The monotonic clock does not jump, as on a
real machine. It must be imported before anything that keeps `time.time` as a default argument.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

_FORMAT = "d"
_real = time.time
_offset: mmap.mmap | None = None


def _moved() -> float:
    return _real() + (struct.unpack_from(_FORMAT, _offset)[0] if _offset is not None else 0.0)


time.time = _moved


def follow(path: Path) -> None:
    """From now on this process's wall clock is off by the seconds in the file."""
    global _offset
    with path.open("r+b") as file:
        _offset = mmap.mmap(file.fileno(), struct.calcsize(_FORMAT))


class Clock:
    """The harness's hand on the wall clock of one site's processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(struct.pack(_FORMAT, 0.0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def move(self, seconds: float) -> None:
        """Move it on by so much, or back."""
        before = struct.unpack_from(_FORMAT, self._map)[0]
        struct.pack_into(_FORMAT, self._map, 0, before + seconds)
