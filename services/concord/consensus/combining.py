"""What the algorithms that first descend and then combine have in common: the gradient is taken at the average.

Legend: w model, x_i model of site i at the end of its last round, W mixing weights of `mixing`. A local step moves w
from where the last average lies. That average is formed as soon as the round ends, from the copies at hand, and put
right by each copy that comes later, so that in lock-step it is the one of this very round:

    end of a round     x_i <- w_i;   w_i <- W_ii x_i + sum_j W_ij x_j          messages carry x_i
    on receipt         w_i <- w_i + W_ij (x_j - the copy of x_j before)

Must not know how a step descends.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from concord.consensus.algorithm import LocalStep, Message
from concord.consensus.mixing import MixingAlgorithm


class CombiningAlgorithm(MixingAlgorithm):
    """Keeps w at the average of what all have told plus the site's own steps since."""

    full_parts: ClassVar[tuple[str, ...]] = ("model",)

    def __init__(self, primal: Tensor, step: LocalStep) -> None:
        super().__init__(primal, step)
        self._told = primal.clone()

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "told": self._told.clone()}

    def _step(self, gradient: Tensor) -> None:
        self._descend(gradient)
        self._steps += 1
        if self._steps % self.step.steps == 0:
            self._told.copy_(self.primal)
            self._mix(self.primal, "model")
            self._end_round()

    @abstractmethod
    def _descend(self, gradient: Tensor) -> None:
        """One step of the primal, in place."""

    def _end_round(self) -> None:
        """The primal is the average with the copies at hand; `_told` is what it was before."""

    def _corrected(self, move: Tensor) -> None:
        """A copy came in, and the average moved so far; `move` may be changed."""

    def _message(self, neighbour: str) -> dict[str, Tensor]:
        return {"model": self._told.clone()}

    def _take_in(self, neighbour: str, message: Message) -> None:
        before = self._copies[neighbour]["model"] if neighbour in self._heard else self._told
        move = message["model"].to(before.device).sub(before).mul_(self._terms[neighbour].averaging)
        super()._take_in(neighbour, message)
        self.primal.add_(move)
        self._corrected(move)

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        self._told.copy_(state["told"])
