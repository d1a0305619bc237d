"""SCAFFOLD (Karimireddy et al., ICML 2020), its option II, with all clients in every round and a server step of 1.

Legend: as in `fedavg`; c_i control variate of client i, c that of the server, all zero at first:

    K times       w   <- w - mu (g - c_i + c)
    then          c_i <- c_i - c + (x - w) / (K mu)
    the server    x   <- sum_i p_i w_i,  c <- sum_i p_i c_i

At rest c_i is the client's own gradient, and no client moves: the optimum, whatever K is. The server's c must be the
mean of all c_i, which is why a report that is lost would be missed.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from concord.consensus.algorithm import LocalStep, Message
from concord.consensus.server import Client


class Scaffold(Client):
    """Descends along the mean gradient of all, as far as it is known: twice the bytes of the others."""

    name: ClassVar[str] = "scaffold"
    parts: ClassVar[tuple[str, ...]] = ("model", "control")

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        super().__init__(primal, step)
        self._control = torch.zeros_like(primal)
        self._shift = torch.zeros_like(primal)
        """c - c_i, which stays for a round."""
        self._began = primal.clone()

    def begin(self, told: Message) -> None:
        super().begin(told)
        self._began.copy_(told["model"])
        torch.sub(told["control"], self._control, out=self._shift)

    def local_step(self, gradient: Tensor) -> None:
        self.primal.add_(gradient, alpha=-self.step.rate).add_(self._shift, alpha=-self.step.rate)

    def report(self) -> Message:
        torch.sub(self._began, self.primal, out=self._control)
        self._control.div_(self.step.rate * self.step.steps).sub_(self._shift)
        return {"model": self.primal, "control": self._control}
