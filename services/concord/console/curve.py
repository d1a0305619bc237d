"""One site's headline metric over its run, in a bounded number of points. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

Point = tuple[float, int, float]
"""Seconds since the console began, rounds done, the metric."""

SILENCE = 5.0
"""Seconds after which a metric that stands still gets a point all the same."""


@dataclass(slots=True)
class Curve:
    """Points in the order of time; when there are more than `limit`, every other one is dropped."""

    limit: int
    points: list[Point] = field(default_factory=list)

    def add(self, at: float, round: int, value: float) -> Point | None:
        """The point, if it tells something that the last one did not."""
        if self.points:
            last_at, _, last = self.points[-1]
            if value == last and at - last_at < SILENCE:
                return None
        point = (at, round, value)
        self.points.append(point)
        if len(self.points) > self.limit:
            self.points = self.points[::2] if len(self.points) % 2 else [*self.points[::2], point]
        return point
