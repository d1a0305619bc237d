"""Training on local data alone: the baseline that says what exchanging is worth."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from concord.consensus.algorithm import Message
from concord.consensus.base import BaseAlgorithm


class Local(BaseAlgorithm):
    """Gradient descent; its messages are empty, so there is nothing to send and nothing to take in."""

    name: ClassVar[str] = "local"

    def _step(self, gradient: Tensor) -> None:
        self.primal.add_(gradient, alpha=-self.step.rate)

    def _message(self, neighbour: str) -> dict[str, Tensor]:
        return {}

    def _take_in(self, neighbour: str, message: Message) -> None:
        pass
