"""Whether a series of measurements grows: pure, and honest about how little a short run can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import theilslopes

HOUR = 3600.0
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per hour by Theil and Sen over the least values of equal windows, with its 95 % interval."""

    per_hour: float
    low: float
    high: float

    def verdict(self, limit: float) -> str:
        """`flat` if surely at most `limit` an hour, `grows` if surely more, else `unresolved`."""
        if self.high <= limit:
            return "flat"
        return "grows" if self.low > limit else "unresolved"


def slope(times: Sequence[float], values: Sequence[float], windows: int = 12) -> Slope | None:
    """Of a series in seconds; None if fewer than four windows have a value.

    The least value of a window is what is held whatever was being done; what comes and goes does not count.
    """
    if not times or times[-1] <= times[0]:
        return None
    length = (times[-1] - times[0]) / windows
    least: dict[int, tuple[float, float]] = {}
    for at, value in zip(times, values, strict=True):
        window = min(int((at - times[0]) / length), windows - 1)
        least[window] = min(least.get(window, (value, at)), (value, at))
    if len(least) < 4:
        return None
    found = theilslopes([value for value, _ in least.values()], [at for _, at in least.values()], CONFIDENCE)
    return Slope(*(HOUR * float(number) for number in (found[0], found[2], found[3])))
