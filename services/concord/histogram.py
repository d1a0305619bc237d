"""A histogram as plain numbers, for whoever counts on a hot path; a collector reads it at scrape time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds for answers within one site."""
DELIVERY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds for what lies between sites."""
WORK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds in seconds for steps and rounds of training, of small models and large."""


class Histogram:
    """Observations by size. `counts[i]` were at most `bounds[i]` and above the bound before it, the last above all;
    not cumulative. `total` is their sum, `last` the newest (None: none yet).
    """

    __slots__ = ("bounds", "counts", "last", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        self.last: float | None = None

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.last = value

    @classmethod
    def sum(cls, bounds: Sequence[float], histograms: Iterable[Histogram]) -> Histogram:
        """All of these, which have these bounds, in one; no `last`."""
        whole = cls(bounds)
        for one in histograms:
            whole.counts = [a + b for a, b in zip(whole.counts, one.counts, strict=True)]
            whole.total += one.total
        return whole

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(self.counts)
