"""D2 (Tang et al., ICML 2018), also called exact diffusion (Yuan et al., TSP 2019): exact in lock-step only.

Legend: w model, g gradient at w, c correction, mu step size, K local steps in a round, W mixing weights, with which
the round ends as `combining` says: half the Metropolis weights of `mixing`, so that no eigenvalue is negative.

    local step      w <- w - mu g - c / K
    every average   c <- c + (w before it) - (w after it)

With K = 1 this is the published x+ = W (2 x - x' - mu (g - g')), where x' and g' are those of the step before; with
more it is local exact diffusion (Alghunaim, TAC 2024), whose corrections make up for the drift of the local steps too.
It rests on a conserved sum, sum_i c_i = 0. A message that one end of an edge uses and the other never sees breaks it
for ever: under loss or uneven timing the result is biased, and gradient noise adds to the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from concord.consensus.algorithm import EdgeEnd, EdgeTerms, LocalStep
from concord.consensus.combining import CombiningAlgorithm
from concord.consensus.options import AlgorithmOptions


class D2(CombiningAlgorithm):
    """Remembers what averaging took away and gives it back step by step."""

    name: ClassVar[str] = "d2"

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        super().__init__(primal, step)
        self._correction = torch.zeros_like(primal)

    @classmethod
    def edge_terms(cls, ours: EdgeEnd, theirs: EdgeEnd, options: AlgorithmOptions) -> EdgeTerms:
        return EdgeTerms(averaging=super().edge_terms(ours, theirs, options).averaging / 2)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "correction": self._correction.clone()}

    def _descend(self, gradient: Tensor) -> None:
        self.primal.add_(gradient, alpha=-self.step.rate)
        self.primal.add_(self._correction, alpha=-1 / self.step.steps)

    def _end_round(self) -> None:
        self._correction.add_(self._told - self.primal)

    def _corrected(self, move: Tensor) -> None:
        self._correction.sub_(move)

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        self._correction.copy_(state["correction"])
