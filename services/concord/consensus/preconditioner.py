"""Step sizes for each coordinate, from how large its gradients have been, as in Adam (Kingma and Ba, 2015).

Of Adam only the second moment is here: what averages gradients, and with which weight, is for others to say. It knows
nothing of neighbours, and no neighbour knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from concord.consensus.options import AlgorithmOptions

DECAY = 0.999
"""b: of the squares of the last thousand gradients or so."""


class Preconditioner:
    """Divides the step size of coordinate c by s_c:

        v_c <- b v_c + (1 - b) g_c^2          s_c = max(1, sqrt(v_c) / mean over all c of sqrt(v_c))

    The mean stands in place of Adam's epsilon and its correction of the beginning, so that a factor on the loss changes
    nothing. Steps only become shorter: a longer one can be unstable where mu is not.
    """

    def __init__(self, primal: Tensor) -> None:
        """For gradients like `primal`, (n,)."""
        self._moments = torch.zeros_like(primal)
        self._scale = torch.ones_like(primal)

    @classmethod
    def of(cls, options: AlgorithmOptions, primal: Tensor) -> Self | None:
        """What the settings ask for; None: all coordinates step alike."""
        return cls(primal) if options.preconditioner == "adam" else None

    def scale(self, gradient: Tensor) -> Tensor:
        """s (n,) after one more gradient (n,): a buffer for the caller to overwrite, until the next call."""
        self._moments.mul_(DECAY).addcmul_(gradient, gradient, value=1 - DECAY)
        roots = torch.sqrt(self._moments, out=self._scale)
        mean = roots.mean()
        if mean == 0:
            return roots.fill_(1)
        return roots.div_(mean).clamp_min_(1)

    def state(self) -> dict[str, Tensor]:
        """A copy of v, by the name `moments`."""
        return {"moments": self._moments.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        self._moments.copy_(state["moments"])
