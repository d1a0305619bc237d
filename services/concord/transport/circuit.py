"""When to stop trying a neighbour for a while: a circuit breaker. Pure; the caller passes the time."""

from __future__ import annotations

from enum import StrEnum


class CircuitState(StrEnum):
    """Closed: requests pass. Open: none do. Half-open: one probe is on its way and decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Opens after `threshold` failures in a row; after `cool_down` seconds lets a single probe through.

    Every request that `allow` let through must end in `succeed`, `fail` or `abandon`. `now` is in seconds on
    any clock that never goes back.
    """

    def __init__(self, threshold: int, cool_down: float) -> None:
        self._threshold = threshold
        self._cool_down = cool_down
        self._failures = 0
        self._opened_at = 0.0
        self.state = CircuitState.CLOSED

    def allow(self, now: float) -> bool:
        """Whether a request may be made now; when an open circuit has cooled down, one caller is."""
        if self.state is CircuitState.OPEN and self.wait(now) == 0.0:
            self.state = CircuitState.HALF_OPEN
            return True
        return self.state is CircuitState.CLOSED

    def wait(self, now: float) -> float:
        """Seconds until `allow` is worth asking again; while a probe is out, at most the cool-down."""
        match self.state:
            case CircuitState.CLOSED:
                return 0.0
            case CircuitState.OPEN:
                return max(0.0, self._opened_at + self._cool_down - now)
            case CircuitState.HALF_OPEN:
                return self._cool_down

    def succeed(self) -> None:
        """A request was answered."""
        self._failures = 0
        self.state = CircuitState.CLOSED

    def fail(self, now: float) -> None:
        """A request was not answered."""
        self._failures += 1
        if self.state is CircuitState.HALF_OPEN or self._failures >= self._threshold:
            self.state = CircuitState.OPEN
            self._opened_at = now

    def abandon(self, now: float) -> None:
        """A request was given up before it was answered: if it was the probe, the next caller is."""
        if self.state is CircuitState.HALF_OPEN:
            self.state = CircuitState.OPEN
            self._opened_at = now - self._cool_down

    def hasten(self, now: float) -> None:
        """The neighbour gave a sign of life: an open circuit allows its probe at once."""
        if self.state is CircuitState.OPEN:
            self._opened_at = now - self._cool_down
