"""Edge-consensus learning: agreement on every edge as a constraint, held by a dual variable per edge end.

Legend: w primal, g gradient, u_ij anchor that site i holds for neighbour j, mu step size, eta penalty, theta
averaging, K local steps in a round, E_i degree. The duals z of Niwa et al. (KDD 2020 and ICML 2021) are u_ij
with the sign of the edge end, u_ij = A_ij z_ij; this form needs no signs:

    local step   w    <- (w / mu - g + sum_j eta_ij u_ij) / (1 / mu + sum_j eta_ij)
    message      m_ij  = 2 w - u_ij
    on receipt   u_ij <- (1 - theta) u_ij + theta m_ji         theta = 1: PDMM, theta = 1/2: ADMM, the default

With theta = 1 a site repeats its neighbours' last motion in full; where messages are steadily late, that swings.

With preconditioner `adam` mu is a number for each coordinate, mu / s with s from `Preconditioner`, in the local step
only. At rest g = sum_j eta_ij (u_ij - w) whatever mu is, so it may differ between sites and change with time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor

from concord.consensus.algorithm import EdgeEnd, EdgeTerms, LocalStep
from concord.consensus.base import AnchoredAlgorithm
from concord.consensus.options import AlgorithmOptions
from concord.consensus.preconditioner import Preconditioner
from concord.consensus.vectors import Layer

DEFAULT_PENALTY = 1.0
DEFAULT_AVERAGING = 0.5


class Ecl(AnchoredAlgorithm):
    """Edge-consensus learning (Niwa et al., KDD 2020) without its proximity term: one penalty for all."""

    name: ClassVar[str] = "ecl"

    def __init__(self, primal: Tensor, step: LocalStep, preconditioner: Preconditioner | None = None) -> None:
        super().__init__(primal, step)
        self._preconditioner = preconditioner
        self._pull = 0.0  # mu times the sum of the penalties

    @classmethod
    def build(cls, options: AlgorithmOptions, primal: Tensor, step: LocalStep, layers: Sequence[Layer] = ()) -> Self:
        return cls(primal, step, Preconditioner.of(options, primal))

    @classmethod
    def edge_terms(cls, ours: EdgeEnd, theirs: EdgeEnd, options: AlgorithmOptions) -> EdgeTerms:
        penalty = DEFAULT_PENALTY if options.penalty is None else options.penalty
        return EdgeTerms(penalty=penalty, averaging=averaging_of(options))

    def state(self) -> dict[str, Tensor]:
        scaling = {} if self._preconditioner is None else self._preconditioner.state()
        return {**super().state(), **scaling}

    def _step(self, gradient: Tensor) -> None:
        if self._changed:
            self._pull = self.step.rate * self._average_anchors()
        if self._preconditioner is None:
            self._plain_step(gradient)
        else:
            self._scaled_step(gradient, self._preconditioner.scale(gradient))

    def _plain_step(self, gradient: Tensor) -> None:
        if self._pull > 0:
            self.primal.lerp_(self._mean, self._pull / (1 + self._pull))
        self.primal.add_(gradient, alpha=-self.step.rate / (1 + self._pull))

    def _scaled_step(self, gradient: Tensor, scale: Tensor) -> None:
        if self._pull == 0:
            self.primal.addcdiv_(gradient, scale, value=-self.step.rate)
            return
        share = scale.add_(self._pull).reciprocal_().mul_(self._pull)
        self.primal.lerp_(self._mean, share)
        self.primal.addcmul_(gradient, share, value=-self.step.rate / self._pull)

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        if self._preconditioner is not None:
            self._preconditioner.restore(state)


class EclIsvr(Ecl):
    """ECL with the penalty at which the duals act as variance reduction (Niwa et al., ICML 2021).

    There eta_i = 1 / (mu E_i (K - 1)) at each end by itself, which weights every site by its degree; here
    both ends use the larger of their degrees and of their mu (K - 1), which weights all sites alike.
    """

    name: ClassVar[str] = "ecl-isvr"
    fewest_steps: ClassVar[int] = 2

    @classmethod
    def edge_terms(cls, ours: EdgeEnd, theirs: EdgeEnd, options: AlgorithmOptions) -> EdgeTerms:
        penalty = options.penalty_scale / (longest_drift(ours, theirs) * max(ours.degree, theirs.degree))
        return EdgeTerms(penalty=penalty, averaging=averaging_of(options))


def averaging_of(options: AlgorithmOptions, usual: float = DEFAULT_AVERAGING) -> float:
    """Theta as the job has it, or else the usual one of the algorithm."""
    return usual if options.averaging is None else options.averaging


def longest_drift(ours: EdgeEnd, theirs: EdgeEnd) -> float:
    """mu (K - 1), the larger of the two ends'."""
    return max(end.step.rate * (end.step.steps - 1) for end in (ours, theirs))
