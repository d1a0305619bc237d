"""What happens to one virtual site: how fast it is, and when it stands still, dies, comes or goes."""

from __future__ import annotations

from dataclasses import dataclass

from concord.simulate.clock import Span


@dataclass(frozen=True, slots=True)
class Crash:
    """The site dies `at` this time and boots again `down` seconds later."""

    at: float
    down: float


@dataclass(frozen=True, slots=True)
class Faults:
    """One site's fate; times in virtual seconds, spans in order and apart.

    `speed` (> 0) divides the time of a step. `joins` and `leaves` are None for a site that is there from the start
    and stays; one that leaves before it joins is there from the start, too.
    """

    speed: float = 1.0
    pauses: tuple[Span, ...] = ()
    crashes: tuple[Crash, ...] = ()
    joins: float | None = None
    leaves: float | None = None

    @property
    def starts_present(self) -> bool:
        """Whether the site is there from the start."""
        return self.joins is None or (self.leaves is not None and self.leaves < self.joins)

    @property
    def comes_back(self) -> bool:
        """Whether the site joins after it left."""
        return self.leaves is not None and self.joins is not None and self.leaves < self.joins

    def finish(self, start: float, seconds: float) -> float:
        """When work of so many seconds at speed 1 is done that begins at `start`, pauses left out."""
        end = start + seconds / self.speed
        for pause in self.pauses:
            if pause.start < end and start < pause.end:
                end += pause.end - max(pause.start, start)
        return end
