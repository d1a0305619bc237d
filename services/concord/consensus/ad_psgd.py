"""Asynchronous decentralised parallel SGD (AD-PSGD; Lian et al., ICML 2018): once per round average with one neighbour.

Legend: w model, g gradient at w, mu step size, K local steps in a round, x_j newest copy of neighbour j's model. At
the end of a round the site chooses its next neighbour, in turn, and tells it so. The first step that finds itself
chosen, or having chosen, averages before it descends, as published along a gradient of the model before:

    w <- (w + x_j) / 2          for the neighbour chosen, and for each that chose this site since its last message
    w <- w - mu g               every local step

The publication averages both models in one atomic exchange, which keeps their sum and makes one site wait for the
other. Here nobody waits: each end averages by itself, once for each choice, with the newest copy it has. If the two
messages cross, the sum is kept; if one is late or lost, it is off by what the model moved since, and no more, because
models are state. Choices are counted, so that a lost message does not lose the choice that it told of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from concord.consensus.algorithm import EdgeEnd, EdgeTerms, LocalStep, Message, PartLayout
from concord.consensus.mixing import MixingAlgorithm
from concord.consensus.options import AlgorithmOptions


class AdPsgd(MixingAlgorithm):
    """Averages in pairs; a message is the model and how often its receiver was chosen."""

    name: ClassVar[str] = "ad-psgd"
    full_parts: ClassVar[tuple[str, ...]] = ("model",)

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        super().__init__(primal, step)
        self._chosen: dict[str, int] = {}
        """How often this site has chosen each neighbour."""
        self._told: dict[str, int] = {}
        """How often each neighbour has chosen this site, as far as it told."""
        self._pending: set[str] = set()

    @classmethod
    def edge_terms(cls, ours: EdgeEnd, theirs: EdgeEnd, options: AlgorithmOptions) -> EdgeTerms:
        return EdgeTerms(averaging=0.5)

    def layout(self) -> Mapping[str, PartLayout]:
        return {**super().layout(), "chosen": PartLayout("int64", 1)}

    def state(self) -> dict[str, Tensor]:
        pairs = {
            f"pair/{name}": torch.tensor([self._chosen[name], self._told[name], int(name in self._pending)])
            for name in self._terms
        }
        return {**super().state(), **pairs}

    def _step(self, gradient: Tensor) -> None:
        for neighbour in self._terms:
            if neighbour in self._pending and neighbour in self._heard:
                self.primal.lerp_(self._copies[neighbour]["model"], self._terms[neighbour].averaging)
        self._pending.clear()
        self.primal.add_(gradient, alpha=-self.step.rate)
        self._steps += 1
        if self._steps % self.step.steps == 0:
            self._choose()

    def _choose(self) -> None:
        if self._terms:
            number = self._steps // self.step.steps - 1
            neighbour = list(self._terms)[number % len(self._terms)]
            self._chosen[neighbour] += 1
            self._pending.add(neighbour)

    def _message(self, neighbour: str) -> dict[str, Tensor]:
        return {"model": self.primal.clone(), "chosen": torch.tensor([self._chosen[neighbour]])}

    def _take_in(self, neighbour: str, message: Message) -> None:
        super()._take_in(neighbour, message)
        chosen = int(message["chosen"])
        if chosen != self._told[neighbour]:  # or less: the neighbour came back from an old checkpoint
            self._told[neighbour] = chosen
            self._pending.add(neighbour)

    def _join(self, neighbour: str) -> None:
        super()._join(neighbour)
        self._chosen[neighbour] = self._told[neighbour] = 0

    def _leave(self, neighbour: str) -> None:
        super()._leave(neighbour)
        del self._chosen[neighbour], self._told[neighbour]
        self._pending.discard(neighbour)

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        self._pending.clear()
        for name in self._terms:
            self._chosen[name], self._told[name], pending = (int(number) for number in state[f"pair/{name}"])
            if pending:
                self._pending.add(name)
