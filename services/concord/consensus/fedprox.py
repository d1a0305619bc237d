"""FedAvg with a spring to the server's model (FedProx; Li et al., MLSys 2020).

Legend: as in `fedavg`; q `proximal`. Each client descends on f_i(w) + (q / 2) |w - x|^2:

    K times       w <- w - mu (g + q (w - x))

The larger q is, the less clients drift apart, the nearer the optimum the rounds come to rest, and the slower they are.
Stable while mu times (curvature + q) stays below 2.
"""

from __future__ import annotations

from typing import ClassVar, Self

from torch import Tensor

from concord.consensus.algorithm import LocalStep, Message
from concord.consensus.fedavg import FedAvg
from concord.consensus.options import AlgorithmOptions


class FedProx(FedAvg):
    """Holds on to where the round began."""

    name: ClassVar[str] = "fedprox"

    def __init__(self, primal: Tensor, step: LocalStep, proximal: float) -> None:
        super().__init__(primal, step)
        self._proximal = proximal
        self._began = primal.clone()

    @classmethod
    def build(cls, options: AlgorithmOptions, primal: Tensor, step: LocalStep) -> Self:
        return cls(primal, step, options.proximal)

    def begin(self, told: Message) -> None:
        super().begin(told)
        self._began.copy_(told["model"])

    def local_step(self, gradient: Tensor) -> None:
        self.primal.lerp_(self._began, self.step.rate * self._proximal)
        super().local_step(gradient)
