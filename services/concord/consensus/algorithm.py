"""The contract every decentralised algorithm satisfies: a small pure object over flat tensors.

The same object runs in the simulator and at a deployed site. It knows no clock, no randomness source, no network,
no file and no logger. Order of use within a round, which keeps what is sent consistent with what was stepped:
absorb, then step, then compute the outgoing updates, then publish.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

Message = Mapping[str, Tensor]
"""The tensors one site sends over one edge at one time, by part name; each flat."""

PART_BYTES: Mapping[str, int] = {
    "float64": 8,
    "int64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int8": 1,
    "uint8": 1,
}
"""The element types that a part may have, by torch's names, and the bytes of one element."""


@dataclass(frozen=True, slots=True)
class PartLayout:
    """What one part of a message must be: a flat tensor of `length` elements of type `dtype`, a key of PART_BYTES.

    ValueError for another type or a negative length.
    """

    dtype: str
    length: int

    def __post_init__(self) -> None:
        if self.dtype not in PART_BYTES or self.length < 0:
            raise ValueError(f"no part of a message is {self}")

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """The layout that a flat tensor satisfies."""
        return cls(_name(tensor.dtype), tensor.numel())

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return PART_BYTES[self.dtype] * self.length

    def fits(self, tensor: Tensor) -> bool:
        """Whether type and shape of a tensor are exactly these."""
        return _name(tensor.dtype) == self.dtype and tensor.shape == (self.length,)

    def __str__(self) -> str:
        return f"{self.dtype} [{self.length}]"


def payload_bytes(layout: Mapping[str, PartLayout]) -> int:
    """What one message costs on an edge, in bytes, apart from its header."""
    return sum(part.size for part in layout.values())


@dataclass(frozen=True, slots=True)
class LocalStep:
    """How one site steps: `rate` is the step size mu (> 0), `steps` the number K (>= 1) of steps in a round."""

    rate: float
    steps: int


@dataclass(frozen=True, slots=True)
class EdgeEnd:
    """What one end of an edge brings to the agreement on its terms; `degree` counts the end's neighbours.

    `mixing_time` is the graph's, in rounds (>= 1), with some allowance for sites that are away.
    """

    step: LocalStep
    degree: int
    mixing_time: float = 1.0


@dataclass(frozen=True, slots=True)
class EdgeTerms:
    """What both ends of an edge must use alike: `penalty` eta (>= 0) and `averaging` theta (0 < theta <= 1).

    `mixing_time` of the graph, as above, is for each end's own use, and 1 where the algorithm does not ask for it.
    """

    penalty: float = 0.0
    averaging: float = 1.0
    mixing_time: float = 1.0


class Algorithm(ABC):
    """One site's share of a decentralised optimisation.

    `primal` is the site's model as one flat contiguous tensor, changed in place; the module's parameters are views
    of it. After construction add one neighbour per edge; anchors start at the current primal.
    """

    name: ClassVar[str]

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        self.primal = primal
        self.step = step

    @abstractmethod
    def layout(self) -> Mapping[str, PartLayout]:
        """The parts of every message, the same as long as the object lives; empty if it sends nothing."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts of a message."""
        return tuple(self.layout())

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
        """Take in the newest message from a neighbour; the tensors are copied, never kept.

        AlgorithmError if it is not of the layout. UpdateRefused, and no change, if what the parts say cannot be,
        such as an index beyond the model: a fault of the sender that the layout does not show.
        """

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

        With nothing `sent`, the message is taken for the first over a new edge. For reports, and for a new site that
        begins where its neighbours are; what it returns is never part of a step.
        """
        return None

    def begin_at(self, model: Tensor) -> None:
        """Stand where others have come to by now, before the first step: a new site among sites that have begun."""
        self.primal.copy_(model)

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything but the primal and the terms, for a checkpoint: named tensors, copies."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`, for the same neighbours; AlgorithmError, and no change, if it does not fit."""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
