"""Whether the numbers of an update can be at all, judged by what its edge and this site have seen. Pure: time is given.

What is looked at is the greatest magnitude in each floating-point part. Steps, learning rates, joins, restarts and
outages change it by factors of a few, because it is that of a model, not of a step; a number gone mad changes it by
many powers of ten. It says nothing of values that are wrong but of the right size.

A part is refused if its magnitude is over `factor` times the edge's scale. The scale is the greatest of FLOOR, of what
this site itself sends in that part, and of what came over the edge, refused or not; but what came lifts it no faster
than to the double of itself in DOUBLING seconds of steady sending. So a neighbour whose values are truly of that size
is taken in after a while without anybody's doing, and one that diverges, or lies, is kept out for long: 20 minutes for
a million times the bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from concord.errors import RefusalReason, UpdateRefused

FACTOR = 10_000.0
FLOOR = 1.0
"""The least scale: parameters may begin at zero."""
CEILING = 1e18
"""Beyond it the square of a float32, and so every norm, is infinite: refused whatever the edge has seen."""
DOUBLING = 60.0


def magnitudes(parts: Mapping[str, Tensor]) -> dict[str, float]:
    """The greatest magnitude in each floating-point part (finite, or infinite if there is NaN), 0 if it is empty."""
    found = {}
    for name, part in parts.items():
        if part.is_floating_point():
            # The extremes carry any NaN or infinity, and finding them allocates nothing.
            extremes = [abs(float(extreme)) for extreme in torch.aminmax(part)] if part.numel() else [0.0]
            found[name] = max(extremes) if all(map(math.isfinite, extremes)) else math.inf
    return found


@dataclass(slots=True)
class Scales:
    """What one edge has seen: a number for each part."""

    factor: float = FACTOR
    _scales: dict[str, float] = field(default_factory=dict)
    _at: float | None = None

    def check(self, found: Mapping[str, float], own: Mapping[str, float], now: float) -> None:
        """Learn of one update, which came at `now` (seconds); UpdateRefused if it cannot be.

        `found` are its magnitudes, `own` those of what this site sends.
        """
        # A long silence earns no more than a moment of sending: else one could wait, and then say anything.
        growth = 1.0 if self._at is None else 2.0 ** min(1.0, max(0.0, now - self._at) / DOUBLING)
        self._at = now
        absurd = ""
        for name, size in found.items():
            scale = max(self._scales.get(name, FLOOR), min(own.get(name, 0.0), CEILING))
            bound = min(self.factor * scale, CEILING)
            if not size <= bound:
                absurd = absurd or f"part {name!r} reaches {size:.3g}; at most {bound:.3g} is believed for now"
            self._scales[name] = max(scale, min(size, scale * growth, CEILING))
        if absurd:
            raise UpdateRefused(RefusalReason.ABSURD, absurd)
