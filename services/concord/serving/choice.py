"""Which of the versions on a shelf is served, and why not another: decisions alone.

Must not know HTTP, Redis, tensors or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from concord.site.ports import Snapshot, Stock


class Place(StrEnum):
    """What a version on the shelf is at present.

    `CANDIDATE`: newer than the one in service, and would do; `HELD_BACK`: newer, and the gate does not let it pass;
    `REFUSED`: newer, and cannot be loaded; `KEPT`: older, answers when asked for by number.
    """

    SERVED = "served"
    CANDIDATE = "candidate"
    HELD_BACK = "held back"
    REFUSED = "refused"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Gate:
    """Holds back a model whose `metric` at publication is worse than that of the one in service by more than `drop`.

    Worse is lower, or higher with `lower_is_better`.
    """

    metric: str
    drop: float
    lower_is_better: bool = False

    def objection(self, candidate: Snapshot, served: Snapshot) -> str | None:
        """Why the candidate must not take the place of the served one; None if it may.

        A candidate without the metric, or with NaN, may not; without something to compare with, it may.
        """
        before, now = served.metrics.get(self.metric), candidate.metrics.get(self.metric)
        if before is None or math.isnan(before) or candidate.key == served.key:
            return None
        if now is None or math.isnan(now):
            return f"{self.metric} is not known"
        fall = now - before if self.lower_is_better else before - now
        if fall <= self.drop:
            return None
        word = "rose" if self.lower_is_better else "fell"
        return f"{self.metric} {word} by {fall:.4g}, from {before:.4g} to {now:.4g}; {self.drop:g} is allowed"


def choose(
    stock: Stock, served: Snapshot | None, gate: Gate | None, refused: Collection[tuple[int, float]] = ()
) -> Snapshot | None:
    """The snapshot that should be in service, of those on the shelf; None: leave things as they are.

    `served` is in service, or was before this process began; `refused` are keys of those that cannot be loaded.
    """
    usable = [snapshot for snapshot in reversed(stock.snapshots) if snapshot.key not in refused]
    held, marks = stock.find(stock.marks.held), stock.marks
    if held is not None:
        return held if held in usable else None
    promoted = stock.find(marks.promoted)
    waits = promoted in usable and not marks.is_over(None if served is None else served.version)
    # What a promotion put into service is what comes after it is compared with.
    before = promoted if waits else served
    passes = _passing(gate, before)
    for snapshot in usable:
        if snapshot.version > marks.floor and passes(snapshot):
            return snapshot
    return promoted if waits else None


def _passing(gate: Gate | None, served: Snapshot | None) -> Callable[[Snapshot], bool]:
    if gate is None or served is None:
        return lambda _: True
    return lambda snapshot: gate.objection(snapshot, served) is None


def place_of(
    snapshot: Snapshot,
    served: Snapshot | None,
    gate: Gate | None,
    refused: Collection[tuple[int, float]] = (),
) -> tuple[Place, str]:
    """What a version on the shelf is, and why, if there is a reason to tell."""
    if served is not None and snapshot.key == served.key:
        return Place.SERVED, ""
    if snapshot.key in refused:
        return Place.REFUSED, "it cannot be loaded; the log says why"
    if served is not None and snapshot.version < served.version:
        return Place.KEPT, ""
    objection = gate.objection(snapshot, served) if gate is not None and served is not None else None
    return (Place.HELD_BACK, objection) if objection else (Place.CANDIDATE, "")


def candidate_of(stock: Stock, served: Snapshot, refused: Collection[tuple[int, float]] = ()) -> Snapshot | None:
    """The newest version that is newer than the one in service, whether it may take its place or not."""
    newer = [one for one in stock.snapshots if one.version > served.version and one.key not in refused]
    return newer[-1] if newer else None


def version_before(stock: Stock, served: Snapshot) -> int | None:
    """Where a roll back goes if nobody says: the next older version on the shelf."""
    return max((one.version for one in stock.snapshots if one.version < served.version), default=None)
