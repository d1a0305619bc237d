"""Decentralised parallel SGD, asynchronous: a baseline that averages models, once per round or at every step.

Legend: w model, g gradient at w, mu step size, K local steps in a round, x_j newest copy of neighbour j's model, W
Metropolis weights of `mixing`. With K = 1 and sites in lock-step this is D-PSGD (Lian et al., NeurIPS 2017):

    first step of a round    w <- W_ii w + sum_j W_ij x_j - mu g
    every other step         w <- w - mu g

It stops short of the optimum where the sites' data disagree: at rest each site's own gradient balances its pull to
the mean. The error grows with mu K and with the disagreement; nothing that is lost does lasting harm.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from concord.consensus.mixing import MixingAlgorithm


class DPsgd(MixingAlgorithm):
    """Averages with the newest copies at the first step after each round's exchange."""

    name: ClassVar[str] = "dpsgd"
    full_parts: ClassVar[tuple[str, ...]] = ("model",)

    def _step(self, gradient: Tensor) -> None:
        if self._mixes():
            self._mix(self.primal, "model")
        self.primal.add_(gradient, alpha=-self.step.rate)

    def _message(self, neighbour: str) -> dict[str, Tensor]:
        return {"model": self.primal.clone()}


class DPsgdEveryStep(DPsgd):
    """Averages with the same, ever older copies at every local step.

    So does the decentralised SGD in the code released with ECL-ISVR (Niwa et al., ICML 2021). The copies hold the
    site back between exchanges, so that a round goes about as far as 1 / (1 - W_ii) of its K steps would: it learns
    slowly, but ends nearer the optimum.
    """

    name: ClassVar[str] = "dpsgd-every-step"
    every_step: ClassVar[bool] = True
