"""Federated averaging (FedAvg; McMahan et al., AISTATS 2017), with all clients in every round.

Legend: w model of a client, x model of the server, g gradient at w, mu step size, p_i weight of client i, sum 1:

    begin         w <- x
    K times       w <- w - mu g
    the server    x <- sum_i p_i w_i

At rest the ways that the clients go in their K steps cancel: that is the optimum with K = 1, and off it by an amount
that grows with mu (K - 1) and with how much the data disagree.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from concord.consensus.server import Client


class FedAvg(Client):
    """Plain descent between two averages."""

    name: ClassVar[str] = "fedavg"

    def local_step(self, gradient: Tensor) -> None:
        self.primal.add_(gradient, alpha=-self.step.rate)
