"""What every algorithm keeps besides its mathematics: its edges, their terms, and the order it is driven in.

An algorithm is one small file: it derives from `BaseAlgorithm`, or from `AnchoredAlgorithm` if it keeps an
anchor per neighbour, and fills in the hooks. Must not know what any algorithm does with a gradient.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from concord.consensus.algorithm import Algorithm, EdgeEnd, EdgeTerms, LocalStep, Message, PartLayout
from concord.consensus.options import AlgorithmOptions
from concord.consensus.vectors import Layer
from concord.errors import AlgorithmError


class BaseAlgorithm(Algorithm):
    """Checks how it is driven and keeps the terms of each edge, in alphabetical order of the neighbours.

    The order makes sums over neighbours independent of when each edge came, so a restored site, which adds
    its neighbours anew, steps bit-identically.
    """

    fewest_steps: ClassVar[int] = 1
    """The least number of local steps in a round that the algorithm is defined for."""
    full_parts: ClassVar[tuple[str, ...]] = ()
    """The parts of a message that are like the primal; these are all unless `layout` says otherwise."""

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        if primal.dim() != 1 or not primal.is_contiguous() or not primal.is_floating_point():
            raise AlgorithmError("the primal must be a flat contiguous tensor of floating point numbers")
        super().__init__(primal, step)
        self._terms: dict[str, EdgeTerms] = {}
        self._absorbed = False
        self._changed = True
        """Whether anything about the edges changed since the last local step."""

    @classmethod
    def build(cls, options: AlgorithmOptions, primal: Tensor, step: LocalStep, layers: Sequence[Layer] = ()) -> Self:
        """The algorithm as the settings ask for it; JobError if they cannot be with this model.

        `layers` are the model's, in the order of the primal, for those who tell them apart.
        """
        return cls(primal, step)

    @classmethod
    def edge_terms(cls, ours: EdgeEnd, theirs: EdgeEnd, options: AlgorithmOptions) -> EdgeTerms:
        """The terms of an edge from its two ends: the same to the last bit whichever end asks."""
        return EdgeTerms()

    def layout(self) -> Mapping[str, PartLayout]:
        return dict.fromkeys(self.full_parts, PartLayout.of(self.primal))

    def local_step(self, gradient: Tensor) -> None:
        self._step(gradient)
        self._absorbed = self._changed = False

    def outgoing(self, neighbour: str) -> dict[str, Tensor]:
        self._require(neighbour)
        if self._absorbed:
            raise AlgorithmError(f"a message for {neighbour} needs a local step after what was absorbed")
        return self._message(neighbour)

    def absorb(self, neighbour: str, message: Message) -> None:
        self._require(neighbour)
        _check_tensors(message, self.layout(), f"the message from {neighbour}")
        self._take_in(neighbour, message)
        self._absorbed = self._changed = True

    def add_neighbour(self, neighbour: str, terms: EdgeTerms) -> None:
        if neighbour in self._terms:
            raise AlgorithmError(f"there is an edge with {neighbour} already")
        _check_terms(terms)
        self._terms = dict(sorted({**self._terms, neighbour: terms}.items()))
        self._join(neighbour)
        self._changed = True

    def remove_neighbour(self, neighbour: str) -> None:
        self._require(neighbour)
        del self._terms[neighbour]
        self._leave(neighbour)
        self._changed = True

    def change_epoch(self, neighbour: str, terms: EdgeTerms) -> None:
        self._require(neighbour)
        _check_terms(terms)
        self._terms[neighbour] = terms
        self._changed = True

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As in the contract; the next message comes from the restored primal and state as they are."""
        wanted = {name: PartLayout.of(tensor) for name, tensor in self.state().items()}
        _check_tensors(state, wanted, "the state")
        self._restore(state)
        self._absorbed = False
        self._changed = True

    @abstractmethod
    def _step(self, gradient: Tensor) -> None:
        """Change the primal in place."""

    @abstractmethod
    def _message(self, neighbour: str) -> dict[str, Tensor]:
        """A new tensor for each part of the layout."""

    @abstractmethod
    def _take_in(self, neighbour: str, message: Message) -> None:
        """Take in a message that is of the layout; UpdateRefused, before any change, if it cannot be."""

    def _join(self, neighbour: str) -> None:
        """Make room for a new edge; its terms are known already."""

    def _leave(self, neighbour: str) -> None:
        """Forget an edge."""

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        """Copy in a state that was checked to fit."""

    def _require(self, neighbour: str) -> None:
        if neighbour not in self._terms:
            raise AlgorithmError(f"there is no edge with {neighbour}")


class AnchoredAlgorithm(BaseAlgorithm):
    """Keeps an anchor u per neighbour, sends 2w - u, and moves the anchor by theta towards what arrives.

    The sign-free form of the duals of edge-consensus learning: no ordering of the two ends that they could
    see differently. One buffer holds the anchors' mean, weighted by the penalties, whatever the number of
    neighbours.
    """

    full_parts: ClassVar[tuple[str, ...]] = ("message",)

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        super().__init__(primal, step)
        self._anchors: dict[str, Tensor] = {}
        self._mean = torch.zeros_like(primal)

    def state(self) -> dict[str, Tensor]:
        return {f"anchor/{neighbour}": self._anchors[neighbour].clone() for neighbour in self._terms}

    def neighbour_model(self, received: Message, sent: Message | None) -> Tensor | None:
        """(received + sent) / 2: exact if theta is 1 and `sent` had arrived there; near rest, right.

        Over a new edge it is what was received, because there the neighbour's anchor is its model.
        """
        if sent is None:
            return received["message"]
        return (received["message"] + sent["message"]).div_(2)

    def _message(self, neighbour: str) -> dict[str, Tensor]:
        return {"message": self.primal.mul(2).sub_(self._anchors[neighbour])}

    def _take_in(self, neighbour: str, message: Message) -> None:
        anchor = self._anchors[neighbour]
        anchor.lerp_(message["message"].to(anchor.device), self._terms[neighbour].averaging)

    def _join(self, neighbour: str) -> None:
        self._anchors[neighbour] = self.primal.clone()

    def _leave(self, neighbour: str) -> None:
        del self._anchors[neighbour]

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        for neighbour, anchor in self._anchors.items():
            anchor.copy_(state[f"anchor/{neighbour}"])

    def _average_anchors(self) -> float:
        """Recompute the mean anchor in its buffer; returns the sum of the penalties (0: there is no mean).

        A running mean instead of a weighted sum: where all anchors agree the result is that very value, so
        that rounding of the weights cannot act as a weight decay.
        """
        total = 0.0
        for neighbour, terms in self._terms.items():
            if terms.penalty > 0:
                total += terms.penalty
                self._blend(self._anchors[neighbour], terms.penalty / total)
        return total

    def _blend(self, anchor: Tensor, weight: float) -> None:
        if weight == 1:
            self._mean.copy_(anchor)  # not lerp_: what is left in the buffer may be infinite
        else:
            self._mean.lerp_(anchor, weight)


def _check_terms(terms: EdgeTerms) -> None:
    finite = math.isfinite(terms.penalty) and math.isfinite(terms.mixing_time)
    if not (finite and terms.penalty >= 0 and 0 < terms.averaging <= 1 and terms.mixing_time >= 1):
        raise AlgorithmError(f"impossible terms of an edge: {terms}")


def _check_tensors(given: Mapping[str, Tensor], wanted: Mapping[str, PartLayout], what: str) -> None:
    """AlgorithmError unless there are tensors of just these names, each of its layout."""
    if given.keys() != wanted.keys():
        raise AlgorithmError(f"{what} holds {sorted(given)} instead of {sorted(wanted)}")
    for name, layout in wanted.items():
        found = given[name]
        if not layout.fits(found):
            raise AlgorithmError(f"{name} of {what} is {found.dtype} {list(found.shape)} instead of {layout}")
