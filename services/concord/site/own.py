"""The parameters that stay at their site: stepped along their own gradient, whatever the algorithm does with the rest.

Knows no neighbour, so that nothing of them can be sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class OwnParameters:
    """`primal` (k,) is changed in place along `gradient` (k,), which each mini-batch fills, at step size `rate`."""

    primal: Tensor
    gradient: Tensor
    rate: float

    def step(self) -> None:
        """One plain local step."""
        self.primal.add_(self.gradient, alpha=-self.rate)
