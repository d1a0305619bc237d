"""Gradient tracking in its naive asynchronous form: exact in lock-step, wrong on a real network. For comparison.

Legend: w model, s tracker of the mean gradient, g gradient at w, mu step size, x_j and y_j newest copies of neighbour
j's w and s, W Metropolis weights of `mixing`. With one step per round and sites in lock-step it is DIGing (Nedic,
Olshevsky and Shi 2017). One local step, the two averages at the first of a round only:

    s <- W_ii s + sum_j W_ij y_j + g - (the gradient of the step before)
    w <- W_ii w + sum_j W_ij x_j - mu s

It rests on a conserved sum, sum_i s_i = sum_i g_i, which a message lost, repeated, delayed or averaged twice breaks
for ever: nothing restores it, so on such a network the result is biased, and under gradient noise the bias walks
about and grows. Algorithms of the ECL family conserve no sum and have no such error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from concord.consensus.algorithm import LocalStep
from concord.consensus.mixing import MixingAlgorithm


class GradientTracking(MixingAlgorithm):
    """Sends model and tracker: twice the bytes of the others."""

    name: ClassVar[str] = "gradient-tracking"
    full_parts: ClassVar[tuple[str, ...]] = ("model", "tracker")

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        super().__init__(primal, step)
        self._tracker = torch.zeros_like(primal)
        self._before = torch.zeros_like(primal)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "tracker": self._tracker.clone(), "before": self._before.clone()}

    def _step(self, gradient: Tensor) -> None:
        if self._mixes():
            self._mix(self._tracker, "tracker")
            self._mix(self.primal, "model")
        self._tracker.add_(gradient).sub_(self._before)
        self._before.copy_(gradient)
        self.primal.add_(self._tracker, alpha=-self.step.rate)

    def _message(self, neighbour: str) -> dict[str, Tensor]:
        return {"model": self.primal.clone(), "tracker": self._tracker.clone()}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        self._tracker.copy_(state["tracker"])
        self._before.copy_(state["before"])
