"""What can happen to a site, as values. Times are in seconds on one clock of the caller's choice, real or virtual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from concord.site.edges import Edge
from concord.wire.messages import Update


@dataclass(frozen=True, slots=True)
class Booted:
    """The site starts or comes back, as the given incarnation."""

    at: float
    incarnation: int


@dataclass(frozen=True, slots=True)
class Reincarnated:
    """A neighbour remembers a later life of this site than the present one; go on as this incarnation."""

    at: float
    incarnation: int


@dataclass(frozen=True, slots=True)
class UpdatesArrived:
    """The newest update of one or more neighbours, checked against the edge table."""

    at: float
    updates: Sequence[Update]


@dataclass(frozen=True, slots=True)
class GradientComputed:
    """One mini-batch is done; its gradient lies in the buffer the brain was given."""

    at: float
    loss: float | None
    samples: int
    finite: bool


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """No further round of gradients may be computed, because of what they would tell of single samples."""

    at: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The present model was evaluated; the metrics are by name."""

    at: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NeighboursHeard:
    """A new member, all of whose edges are new, has heard these neighbours, or no longer waits for more of them."""

    at: float
    updates: Sequence[Update]


@dataclass(frozen=True, slots=True)
class EdgesChanged:
    """A membership decision: from now on the site has exactly these edges."""

    at: float
    edges: Mapping[str, Edge]


Event = (
    Booted | Reincarnated | NeighboursHeard | UpdatesArrived | GradientComputed | BudgetSpent | Evaluated | EdgesChanged
)
