"""What a brain keeps account of: each edge, its counters, and when something is due next. Knows no decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor

from concord.site.edges import Edge
from concord.site.status import EdgeStatus
from concord.wire.messages import Stamp


@dataclass(slots=True)
class EdgeMemory:
    """One edge besides what the algorithm remembers of it; times are in seconds, `distance` is relative."""

    edge: Edge
    sequence: int = 0
    seen: Stamp | None = None
    sent: int = 0
    received: int = 0
    neighbour_round: int | None = None
    absorbed_round: int = 0
    absorbed_at: float | None = None
    distance: float | None = None
    last_sent: dict[str, Tensor] | None = None

    def status(self, round_: int, at: float) -> EdgeStatus:
        """The edge as the site sees it in its round `round_` at time `at`."""
        heard_at = self.absorbed_at
        return EdgeStatus(
            epoch=self.edge.epoch,
            penalty=self.edge.terms.penalty,
            sent=self.sent,
            received=self.received,
            neighbour_round=self.neighbour_round,
            staleness_rounds=None if heard_at is None else round_ - self.absorbed_round,
            staleness_seconds=None if heard_at is None else at - heard_at,
            consensus_distance=self.distance,
        )

    def memo(self) -> dict[str, object]:
        """What of it a checkpoint keeps, for JSON."""
        return {"edge": asdict(self.edge), "seen": str(self.seen) if self.seen is not None else None}

    @classmethod
    def from_memo(cls, memo: Mapping[str, Any]) -> Self:
        """The inverse of `memo`; the rest begins anew."""
        seen = Stamp.parse(memo["seen"]) if memo["seen"] is not None else None
        return cls(Edge.from_fields(memo["edge"]), seen=seen)


@dataclass(slots=True)
class Counters:
    """A site's counters since its job began, over all its lives; `elapsed` is in seconds of training."""

    incarnation: int = 0
    round: int = 0
    step: int = 0
    samples: int = 0
    version: int = 0
    bad_steps: int = 0
    rollbacks: int = 0
    elapsed: float = 0.0


@dataclass(slots=True)
class Timer:
    """Due once per `interval` seconds, counted from when it last rang; at once if it never did."""

    interval: float
    rang: float | None = None

    def due(self, at: float) -> bool:
        """Whether it rings at time `at`."""
        if self.rang is not None and at - self.rang < self.interval:
            return False
        self.rang = at
        return True
