"""RelaySGD (Vogels et al., NeurIPS 2021): on a tree, neighbours relay means, so that every site averages with all.

Legend: w model, g gradient at w, x_i model of site i at the end of its last round, mu step size, K local steps in a
round. A message from i to j is the mean m_ij of the models on i's side of the edge, and how many they are, n_ij:

    local step       w   <- w - mu g
    end of a round   x_i <- w_i
    message          n_ij = 1 + sum_{k != j} n_ki          m_ij = (x_i + sum_{k != j} n_ki m_ki) / n_ij
    average          w_i <- (x_i + sum_k n_ki m_ki) / (1 + sum_k n_ki)

The average is formed when the round ends, from the messages at hand, and put right by each that comes later. The
counts leave out who was not heard yet. The publication relays sums and counts of one round and does without what is
lost; here the newest message stands until the next, so that models far away are as old as the tree is deep, and a
loss makes them older but no less. On a graph with a cycle models would be counted again and again. At rest the
K steps of all sites cancel in the mean: the optimum with K = 1, with more off it by the drift, as in FedAvg.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from concord.consensus.algorithm import LocalStep, Message, PartLayout
from concord.consensus.base import BaseAlgorithm
from concord.errors import RefusalReason, UpdateRefused


class RelaySgd(BaseAlgorithm):
    """Keeps w at the mean of all sites plus the site's own steps since."""

    name: ClassVar[str] = "relay-sgd"
    full_parts: ClassVar[tuple[str, ...]] = ("mean",)

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        super().__init__(primal, step)
        self._told = primal.clone()
        self._means: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._steps = 0

    def layout(self) -> Mapping[str, PartLayout]:
        return {**super().layout(), "count": PartLayout("int64", 1)}

    def state(self) -> dict[str, Tensor]:
        means = {f"mean/{name}": self._means[name].clone() for name in self._terms}
        counts = {f"count/{name}": torch.tensor([self._counts[name]]) for name in self._terms}
        return {**means, **counts, "told": self._told.clone(), "steps": torch.tensor([self._steps])}

    def _step(self, gradient: Tensor) -> None:
        self.primal.add_(gradient, alpha=-self.step.rate)
        self._steps += 1
        if self._steps % self.step.steps == 0:
            self._told.copy_(self.primal)
            self._average(self.primal, self._terms)

    def _average(self, own: Tensor, neighbours: Iterable[str]) -> int:
        """Average one's own model, in place, with the means of these neighbours; returns how many models it is of.

        As a running mean: where all agree the result is that very value.
        """
        total = 1
        for neighbour in neighbours:
            count = self._counts[neighbour]
            if count:
                total += count
                own.lerp_(self._means[neighbour], count / total)
        return total

    def _message(self, neighbour: str) -> dict[str, Tensor]:
        mean = self._told.clone()
        count = self._average(mean, (other for other in self._terms if other != neighbour))
        return {"mean": mean, "count": torch.tensor([count])}

    def _take_in(self, neighbour: str, message: Message) -> None:
        count, before = int(message["count"]), self._counts[neighbour]
        if count < 1:
            raise UpdateRefused(RefusalReason.MALFORMED, f"a mean is of 1 model or more, not of {count}")
        self._counts[neighbour] = count
        total = 1 + sum(self._counts.values())
        mean = message["mean"].to(self.primal.device)
        move = mean.sub(self.primal).mul_(count / total)
        if before:
            move.sub_(self._means[neighbour].sub_(self.primal), alpha=before / total)
        self.primal.add_(move)
        self._means[neighbour].copy_(mean)

    def _join(self, neighbour: str) -> None:
        self._means[neighbour] = torch.zeros_like(self.primal)
        self._counts[neighbour] = 0

    def _leave(self, neighbour: str) -> None:
        del self._means[neighbour], self._counts[neighbour]

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self._told.copy_(state["told"])
        self._steps = int(state["steps"])
        for name, mean in self._means.items():
            mean.copy_(state[f"mean/{name}"])
            self._counts[name] = int(state[f"count/{name}"])
