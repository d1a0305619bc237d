"""The algorithms by name, and where a job's settings are checked against the one they are for."""

from __future__ import annotations

from torch import Tensor

from concord.consensus.algorithm import Algorithm, EdgeEnd, EdgeTerms, LocalStep
from concord.consensus.base import BaseAlgorithm
from concord.consensus.cecl import CEcl
from concord.consensus.dpsgd import DPsgd, DPsgdEveryStep
from concord.consensus.ecl import Ecl, EclIsvr
from concord.consensus.gossip import Gossip
from concord.consensus.gradient_tracking import GradientTracking
from concord.consensus.local import Local
from concord.consensus.options import AlgorithmOptions, require_positive
from concord.consensus.sm_ecl import SmEcl
from concord.errors import JobError
from concord.suggest import unknown

__all__ = ["AlgorithmOptions", "algorithm_names", "build_algorithm", "edge_terms"]

_ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    kind.name: kind for kind in (EclIsvr, Ecl, CEcl, SmEcl, Gossip, DPsgd, DPsgdEveryStep, GradientTracking, Local)
}


def algorithm_names() -> tuple[str, ...]:
    """The names a job may give, sorted."""
    return tuple(sorted(_ALGORITHMS))


def build_algorithm(options: AlgorithmOptions, primal: Tensor, step: LocalStep) -> Algorithm:
    """The algorithm of that name over `primal`, without neighbours yet; JobError for impossible settings."""
    kind = _find(options)
    _check_step(kind, step)
    return kind.build(options, primal, step)


def edge_terms(options: AlgorithmOptions, ours: EdgeEnd, theirs: EdgeEnd) -> EdgeTerms:
    """What the two ends of an edge must use alike; the same to the last bit whichever end asks.

    JobError if the settings of either end cannot be.
    """
    kind = _find(options)
    for end in (ours, theirs):
        _check_step(kind, end.step)
        if end.degree < 1:
            raise JobError(f"an end of an edge has at least 1 neighbour, not {end.degree}")
    return kind.edge_terms(ours, theirs, options)


def _find(options: AlgorithmOptions) -> type[BaseAlgorithm]:
    kind = _ALGORITHMS.get(options.name)
    if kind is None:
        raise JobError(unknown("algorithm", options.name, _ALGORITHMS))
    return kind


def _check_step(kind: type[BaseAlgorithm], step: LocalStep) -> None:
    require_positive("learning_rate", step.rate)
    if step.steps < kind.fewest_steps:
        raise JobError(f"local_steps is {step.steps}; {kind.name} needs at least {kind.fewest_steps}")
