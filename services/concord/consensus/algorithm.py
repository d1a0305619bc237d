"""The contract every decentralised algorithm satisfies: a small pure object over flat tensors.

The same object runs in the simulator and at a deployed site. It knows no clock, no randomness source, no network,
no file and no logger. Order of use within a round, which keeps what is sent consistent with what was stepped:
absorb, then step, then compute the outgoing updates, then publish.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

Message = Mapping[str, Tensor]
"""The tensors one site sends over one edge at one time, by part name; each flat and as long as the primal."""


@dataclass(frozen=True, slots=True)
class LocalStep:
    """How one site steps: `rate` is the step size mu (> 0), `steps` the number K (>= 1) of steps in a round."""

    rate: float
    steps: int


@dataclass(frozen=True, slots=True)
class EdgeEnd:
    """What one end of an edge brings to the agreement on its terms; `degree` counts the end's neighbours."""

    step: LocalStep
    degree: int


@dataclass(frozen=True, slots=True)
class EdgeTerms:
    """What both ends of an edge must use alike: `penalty` eta (>= 0) and `averaging` theta (0 < theta <= 1)."""

    penalty: float = 0.0
    averaging: float = 1.0


class Algorithm(ABC):
    """One site's share of a decentralised optimisation.

    `primal` is the site's model as one flat contiguous tensor, changed in place; the module's parameters are views
    of it. After construction add one neighbour per edge; anchors start at the current primal.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    """Names of the tensors in one message; empty for an algorithm that sends nothing."""

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        self.primal = primal
        self.step = step

    @abstractmethod
    def local_step(self, gradient: Tensor) -> None:
        """One step along `gradient` (flat, like the primal, left unchanged): changes the primal in place."""

    @abstractmethod
    def outgoing(self, neighbour: str) -> dict[str, Tensor]:
        """The message for one neighbour, in new tensors that later steps do not touch.

        AlgorithmError if something was absorbed since the last local step: a message computed from an anchor that
        arrived after the step ties both ends to a wrong point for ever.
        """

    @abstractmethod
    def absorb(self, neighbour: str, message: Message) -> None:
        """Take in the newest message from a neighbour; the tensors are copied, never kept."""

    @abstractmethod
    def add_neighbour(self, neighbour: str, terms: EdgeTerms) -> None:
        """A new edge with the terms both ends agreed on; AlgorithmError if there is one already."""

    @abstractmethod
    def remove_neighbour(self, neighbour: str) -> None:
        """The edge is gone by a decision at both ends (never because a neighbour is silent)."""

    @abstractmethod
    def change_epoch(self, neighbour: str, terms: EdgeTerms) -> None:
        """Both ends moved the edge to a new epoch with these terms; what the edge remembers stays."""

    def neighbour_model(self, received: Message, sent: Message | None) -> Tensor | None:
        """The neighbour's model as far as its newest message and the newest one sent to it tell; None if unknown.

        For reports only; what it returns is never part of a step.
        """
        return None

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything but the primal and the terms, for a checkpoint: named tensors, copies."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`, for the same neighbours; AlgorithmError, and no change, if it does not fit."""
