"""Momentum Tracking (Takezawa et al., TMLR 2023): gradient tracking of the momentum, so that it does not add bias.

Legend: g gradient, u momentum, b momentum factor; the rest as in `gradient_tracking`, which tracks u in place of g:

    every local step    u <- b u + (1 - b) g

The published momentum is b u + g: the factor (1 - b), as in all momentum here, keeps the length of a step at mu
whatever b is, and mu corresponds to (1 - b) mu there. The publication begins with an average of all sites' gradients,
for which there is no place here; the trackers begin at zero, and their sum is right all the same. Exact in lock-step,
and as wrong as gradient tracking where messages are lost or sites uneven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from concord.consensus.algorithm import LocalStep
from concord.consensus.gradient_tracking import GradientTracking
from concord.consensus.options import AlgorithmOptions
from concord.consensus.vectors import Layer


class MomentumTracking(GradientTracking):
    """Gradient tracking along a momentum."""

    name: ClassVar[str] = "momentum-tracking"

    def __init__(self, primal: Tensor, step: LocalStep, factor: float) -> None:
        super().__init__(primal, step)
        self._factor = factor
        self._momentum = torch.zeros_like(primal)

    @classmethod
    def build(cls, options: AlgorithmOptions, primal: Tensor, step: LocalStep, layers: Sequence[Layer] = ()) -> Self:
        return cls(primal, step, options.momentum)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "momentum": self._momentum.clone()}

    def _step(self, gradient: Tensor) -> None:
        super()._step(self._momentum.lerp_(gradient, 1 - self._factor))

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        self._momentum.copy_(state["momentum"])
