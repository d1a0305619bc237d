"""The greatest memory that all processes below this one held at one time.

A page that several of them share counts once (proportional set size). Looking costs time, so it is done in runs whose
times do not count.
"""

from __future__ import annotations

import threading
from typing import Self

import psutil

_EVERY = 0.1
"""Seconds between two looks."""


class PeakMemory:
    """Looks until the `with` block ends; then `megabytes` is the greatest sum seen."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._stop.wait(_EVERY):
            self.megabytes = max(self.megabytes, sum(map(_share, psutil.Process().children(recursive=True))) / 1e6)


def _share(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
