"""Virtual time: what is going to happen, in the one order that makes a simulation repeatable.

Must not know what happens, nor look at a real clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

Happening = Callable[[], None]

_DIGITS = 9


class Rank(IntEnum):
    """The order within one instant: news is there before the step that could use it, measuring comes last.

    What happens at `GROUP` finds all steps of the instant due, whichever sites they are of.
    """

    DELIVERY = 0
    CHANGE = 1
    STEP = 2
    GROUP = 3
    MEASURE = 4


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to before `end`, in virtual seconds."""

    start: float
    end: float

    def __contains__(self, at: float) -> bool:
        return self.start <= at < self.end


class Agenda:
    """Happenings by time, then rank, then the order in which they were entered. `now` is in virtual seconds.

    Times are kept to the nanosecond: a hundred steps of 0.01 s end at 1 s, as do fifty of 0.02 s.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._entered = 0
        self._heap: list[tuple[float, int, int, Happening]] = []

    def add(self, at: float, rank: Rank, happening: Happening) -> None:
        """Let something happen at a time that is not over."""
        self._entered += 1  # breaks ties, so that happenings are never compared
        heapq.heappush(self._heap, (max(round(at, _DIGITS), self.now), rank, self._entered, happening))

    @property
    def next_at(self) -> float | None:
        """When something happens next; None if nothing ever does."""
        return self._heap[0][0] if self._heap else None

    def advance(self) -> None:
        """Let the next thing happen; there must be one."""
        self.now, _, _, happening = heapq.heappop(self._heap)
        happening()
