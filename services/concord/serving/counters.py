"""What a prediction service counts, as plain values that a metrics collector reads at scrape time."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

LATENCY_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds of the latency classes; one more class holds everything above."""


@dataclass(slots=True)
class Histogram:
    """`counts[i]` observations were at most `bounds[i]`, and above the bound before it; not cumulative."""

    bounds: tuple[float, ...] = LATENCY_BOUNDS
    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    total: float = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class InferenceState:
    """Counters since the start: requests by (route, status), rows answered, latency in seconds by route."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    rows: int = 0
    latency: dict[str, Histogram] = field(default_factory=dict)

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests[route, status] += 1
        histogram = self.latency.get(route)
        if histogram is None:
            histogram = self.latency[route] = Histogram()
        histogram.observe(seconds)

    @property
    def errors(self) -> int:
        """Requests answered with a status of 400 or more."""
        return sum(count for (_, status), count in self.requests.items() if status >= 400)
