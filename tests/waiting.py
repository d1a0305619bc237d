"""Waiting for what announces itself to nobody, in tests of real processes."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0


def wait_until(holds: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Return once it holds; AssertionError that says what did not happen in time."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
