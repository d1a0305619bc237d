"""D-PSGD with quasi-global momentum (QG-DSGDm; Lin et al., ICML 2021): momentum along the way that averaged models go.

Legend: w model, g gradient at w, m momentum, b momentum factor, mu step size, K local steps in a round, w' the model
where the round began. Rounds end as `combining` says, with the Metropolis weights of `mixing`.

    local step                    w <- w - mu (b m + (1 - b) g)
    first step after an average   m <- b m + (1 - b) (w' - w) / (mu K), before it; then w' <- w

The published direction is b m + g: the factor (1 - b), as in all momentum here, keeps the length of a step at mu
whatever b is, and mu corresponds to (1 - b) mu there. As there, m stands still within a round. At rest m = 0 and all is
as in D-PSGD with the step size (1 - b) mu, that is, short of the optimum where the sites' data disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from concord.consensus.algorithm import LocalStep
from concord.consensus.combining import CombiningAlgorithm
from concord.consensus.options import AlgorithmOptions
from concord.consensus.vectors import Layer


class QgDsgdm(CombiningAlgorithm):
    """Sends the model alone: the momentum follows from how it moved."""

    name: ClassVar[str] = "qg-dsgdm"

    def __init__(self, primal: Tensor, step: LocalStep, factor: float) -> None:
        super().__init__(primal, step)
        self._factor = factor
        self._momentum = torch.zeros_like(primal)
        self._began = primal.clone()

    @classmethod
    def build(cls, options: AlgorithmOptions, primal: Tensor, step: LocalStep, layers: Sequence[Layer] = ()) -> Self:
        return cls(primal, step, options.momentum)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "momentum": self._momentum.clone(), "began": self._began.clone()}

    def _descend(self, gradient: Tensor) -> None:
        if self._steps and self._steps % self.step.steps == 0:
            self._follow()
        self.primal.add_(self._momentum, alpha=-self.step.rate * self._factor)
        self.primal.add_(gradient, alpha=-self.step.rate * (1 - self._factor))

    def _follow(self) -> None:
        """Take the way from where the round before began into the momentum."""
        way = self._began.sub_(self.primal)
        self._momentum.mul_(self._factor).add_(way, alpha=(1 - self._factor) / (self.step.rate * self.step.steps))
        self._began.copy_(self.primal)

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        self._momentum.copy_(state["momentum"])
        self._began.copy_(state["began"])
