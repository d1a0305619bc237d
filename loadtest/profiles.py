"""How many users there are when. Pure: knows neither Locust nor a clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """For so many seconds there are so many users."""

    seconds: float
    users: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Stages one after the other; ends with the last, or after `requests` of them, whichever comes first."""

    stages: tuple[Stage, ...]
    requests: int | None = None

    @property
    def seconds(self) -> float:
        """How long all of it takes."""
        return sum(stage.seconds for stage in self.stages)

    def users_at(self, seconds: float) -> int | None:
        """How many users there should be so long after the start; None once it is over."""
        for stage in self.stages:
            if seconds < stage.seconds:
                return stage.users
            seconds -= stage.seconds
        return None


PROFILES = {
    "smoke": Profile((Stage(10, 8),), requests=3000),
    "steady": Profile((Stage(10, 8), Stage(120, 24))),
    "spike": Profile((Stage(20, 8), Stage(20, 120), Stage(40, 8))),
    "soak": Profile((Stage(1800, 16),)),
}

USERS = {
    "inference": ("JsonUser", "BinaryUser", "PlainUser"),
    "neighbours": ("NeighbourUser",),
    "mixed": ("JsonUser", "BinaryUser", "PlainUser", "NeighbourUser"),
}
"""Classes of locustfile.py by what they are for."""
