"""What a prediction service counts, as plain values that a metrics collector reads at scrape time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from concord.histogram import LATENCY, Histogram


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
            histogram = self.latency[route] = Histogram(LATENCY)
        histogram.observe(seconds)

    @property
    def errors(self) -> int:
        """Requests answered with a status of 400 or more."""
        return sum(count for (_, status), count in self.requests.items() if status >= 400)
