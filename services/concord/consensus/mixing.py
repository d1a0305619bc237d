"""What the algorithms that average with copies of their neighbours' tensors have in common.

Legend: W_ij the weight that site i gives to neighbour j, E_i degree. Metropolis weights (Xiao, Boyd and Kim 2007)
are symmetric with rows and columns that sum to one, on any graph:

    W_ij = 1 / (1 + max(E_i, E_j))          W_ii = 1 - sum_j W_ij

A neighbour that was not heard yet is left out, and the rest of the row is scaled up to sum to one. Must not know
what any algorithm does with a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from concord.consensus.algorithm import EdgeEnd, EdgeTerms, LocalStep, Message
from concord.consensus.base import BaseAlgorithm
from concord.consensus.options import AlgorithmOptions


class MixingAlgorithm(BaseAlgorithm):
    """Keeps the newest copy of what each neighbour sent and averages one's own tensors with it now and then.

    The weight W_ij of an edge is the `averaging` of its terms.
    """

    every_step: ClassVar[bool] = False
    """Whether to average at every local step, not only at the first of each round."""

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        super().__init__(primal, step)
        self._copies: dict[str, dict[str, Tensor]] = {}
        self._heard: set[str] = set()
        self._steps = 0

    @classmethod
    def edge_terms(cls, ours: EdgeEnd, theirs: EdgeEnd, options: AlgorithmOptions) -> EdgeTerms:
        return EdgeTerms(averaging=1 / (1 + max(ours.degree, theirs.degree)))

    def neighbour_model(self, received: Message, sent: Message | None) -> Tensor | None:
        return received["model"]

    def state(self) -> dict[str, Tensor]:
        copies = {
            f"{part}/{neighbour}": self._copies[neighbour][part].clone()
            for neighbour in self._terms
            for part in self.full_parts
        }
        heard = {f"heard/{neighbour}": torch.tensor([int(neighbour in self._heard)]) for neighbour in self._terms}
        return {**copies, **heard, "steps": torch.tensor([self._steps])}

    def _mixes(self) -> bool:
        """Count a local step; whether it is one that averages: the first after a round's exchange."""
        first = self._steps > 0 and self._steps % self.step.steps == 0
        self._steps += 1
        return first or self.every_step

    def _mix(self, own: Tensor, part: str) -> None:
        """Average a tensor of one's own, in place, with the copies of the neighbours heard so far.

        As a running mean: where all agree the result is that very value, and rounding is no weight decay.
        """
        # Never less than any Metropolis weight of its own, should edges be of different times and degrees.
        total = max(1 - sum(terms.averaging for terms in self._terms.values()), 1 / (1 + len(self._terms)))
        for neighbour, terms in self._terms.items():
            if neighbour in self._heard:
                total += terms.averaging
                own.lerp_(self._copies[neighbour][part], terms.averaging / total)

    def _take_in(self, neighbour: str, message: Message) -> None:
        for part, copy in self._copies[neighbour].items():
            copy.copy_(message[part])
        self._heard.add(neighbour)

    def _join(self, neighbour: str) -> None:
        self._copies[neighbour] = {part: torch.zeros_like(self.primal) for part in self.full_parts}

    def _leave(self, neighbour: str) -> None:
        del self._copies[neighbour]
        self._heard.discard(neighbour)

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self._steps = int(state["steps"])
        self._heard = {neighbour for neighbour in self._copies if state[f"heard/{neighbour}"]}
        for neighbour, copies in self._copies.items():
            for part, copy in copies.items():
                copy.copy_(state[f"{part}/{neighbour}"])
