"""Waiting for what announces itself to nobody, in tests of real processes."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0


def wait_until(
    holds: Callable[[], bool], what: str, timeout: float = PATIENCE, progress: Callable[[], float] = lambda: 0
) -> None:
    """Return once it holds; AssertionError that says what did not happen in time.

    The time begins anew whenever the progress, which has an end, is above all before: a slow machine is no defect.
    """
    most, deadline = progress(), time.monotonic() + timeout
    while not holds():
        now = progress()
        if now > most:
            most, deadline = now, time.monotonic() + timeout
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
