"""Asynchronous gossip: the baseline that averages models and stalls when the sites' data disagree."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from concord.consensus.algorithm import Message
from concord.consensus.base import BaseAlgorithm


class Gossip(BaseAlgorithm):
    """Gradient descent; on receipt of a neighbour's model w_j, w <- (w + w_j) / 2."""

    name: ClassVar[str] = "gossip"
    full_parts: ClassVar[tuple[str, ...]] = ("model",)

    def neighbour_model(self, received: Message, sent: Message | None) -> Tensor | None:
        return received["model"]

    def _step(self, gradient: Tensor) -> None:
        self.primal.add_(gradient, alpha=-self.step.rate)

    def _message(self, neighbour: str) -> dict[str, Tensor]:
        return {"model": self.primal.clone()}

    def _take_in(self, neighbour: str, message: Message) -> None:
        self.primal.lerp_(message["model"].to(self.primal.device), 0.5)
