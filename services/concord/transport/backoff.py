"""How long to wait before trying again: decorrelated jitter. Pure; the caller sleeps."""

from __future__ import annotations

import random


class DecorrelatedJitter:
    """Waits that grow and scatter, so that the clients of a failed server do not all return at once.

    Each wait is uniform between `base` and three times the wait before, at most `cap` (seconds).
    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, base: float, cap: float, rng: random.Random) -> None:
        self._base = base
        self._cap = cap
        self._rng = rng
        self._last = base

    def next(self) -> float:
        """The next wait in seconds."""
        self._last = min(self._cap, self._rng.uniform(self._base, 3.0 * self._last))
        return self._last

    def reset(self) -> None:
        """Start over after a success."""
        self._last = self._base
