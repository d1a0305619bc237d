"""Rounds that a server leads: what its algorithms have in common. Concord has no server; these are to compare with.

In every round the server tells all clients the same, each does its K local steps, and each part of what the server
tells next is the weighted mean of that part of their reports. Must not know who carries the messages, or when.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from concord.consensus.algorithm import LocalStep, Message, PartLayout
from concord.consensus.options import AlgorithmOptions


class Server:
    """Holds what all clients are told, by part; `model` (n,) is the one that counts."""

    def __init__(self, start: Tensor, parts: Sequence[str]) -> None:
        self._told = {part: torch.zeros_like(start) for part in parts}
        self._told["model"] = start.clone()

    @property
    def model(self) -> Tensor:
        """The model of all; not to be changed."""
        return self._told["model"]

    def tell(self) -> Message:
        """What every client begins the next round with; not to be changed."""
        return self._told

    def combine(self, reports: Sequence[tuple[float, Message]]) -> None:
        """End a round with the reports of all clients, each with its weight (> 0)."""
        total = sum(weight for weight, _ in reports)
        for part, value in self._told.items():
            value.zero_()
            for weight, report in reports:
                value.add_(report[part], alpha=weight / total)


class Client(ABC):
    """One site's share of the rounds: in each `begin`, then K times `local_step`, then `report`.

    `primal` (n,) is the site's model, changed in place.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ("model",)
    """What the server tells and the client reports, each as long as the model."""
    fewest_steps: ClassVar[int] = 1
    """The least number of local steps in a round that the algorithm is defined for."""

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        self.primal = primal
        self.step = step

    @classmethod
    def build(cls, options: AlgorithmOptions, primal: Tensor, step: LocalStep) -> Self:
        """The client as the settings ask for it."""
        return cls(primal, step)

    def layout(self) -> Mapping[str, PartLayout]:
        """The parts of a message in either direction."""
        return dict.fromkeys(self.parts, PartLayout.of(self.primal))

    def begin(self, told: Message) -> None:
        """Start a round from what the server tells."""
        self.primal.copy_(told["model"])

    @abstractmethod
    def local_step(self, gradient: Tensor) -> None:
        """One step along `gradient` (n,), which is left unchanged."""

    def report(self) -> Message:
        """What the server is to combine; to be used before the next round begins."""
        return {"model": self.primal}
