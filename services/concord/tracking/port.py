"""What an experiment tracker does, whichever it is. Must not know what the values mean, nor where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tracker(Protocol):
    """Keeps curves by run and site. EnvironmentProblem from any method if they cannot be kept."""

    def log(self, run: str, site: str, step: int, values: Mapping[str, float], at: float) -> None:
        """Points of a site's curves: `step` counts rounds, `at` is seconds since the Unix epoch."""

    def close(self) -> None:
        """Nothing more will come; what was logged is kept when this returns."""
