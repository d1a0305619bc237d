"""The algorithms by name, and where a job's settings are checked against the one they are for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from concord.consensus.ad_psgd import AdPsgd
from concord.consensus.algorithm import Algorithm, EdgeEnd, EdgeTerms, LocalStep
from concord.consensus.base import BaseAlgorithm
from concord.consensus.cecl import CEcl
from concord.consensus.d2 import D2
from concord.consensus.dpsgd import DPsgd, DPsgdEveryStep
from concord.consensus.ecl import Ecl, EclIsvr
from concord.consensus.fedavg import FedAvg
from concord.consensus.fedprox import FedProx
from concord.consensus.gossip import Gossip
from concord.consensus.gradient_tracking import GradientTracking
from concord.consensus.local import Local
from concord.consensus.momentum_tracking import MomentumTracking
from concord.consensus.options import AlgorithmOptions, require_positive
from concord.consensus.qg_dsgdm import QgDsgdm
from concord.consensus.relay_sgd import RelaySgd
from concord.consensus.scaffold import Scaffold
from concord.consensus.server import Client
from concord.consensus.sm_ecl import SmEcl
from concord.consensus.vectors import Layer
from concord.errors import JobError
from concord.suggest import unknown

__all__ = [
    "AlgorithmOptions",
    "algorithm_names",
    "build_algorithm",
    "build_client",
    "edge_terms",
    "server_algorithm_names",
]

_KINDS: tuple[type[BaseAlgorithm], ...] = (
    *(EclIsvr, Ecl, CEcl, SmEcl),
    *(Gossip, AdPsgd, DPsgd, DPsgdEveryStep, QgDsgdm, RelaySgd),
    *(GradientTracking, MomentumTracking, D2),
    Local,
)
_ALGORITHMS = {kind.name: kind for kind in _KINDS}
_CLIENTS: dict[str, type[Client]] = {kind.name: kind for kind in (FedAvg, FedProx, Scaffold)}


def algorithm_names() -> tuple[str, ...]:
    """The algorithms between neighbours that a job may name, sorted."""
    return tuple(sorted(_ALGORITHMS))


def server_algorithm_names() -> tuple[str, ...]:
    """The algorithms with a server that a job may name, sorted; only a simulation has one."""
    return tuple(sorted(_CLIENTS))


def build_algorithm(
    options: AlgorithmOptions, primal: Tensor, step: LocalStep, layers: Sequence[Layer] = ()
) -> Algorithm:
    """The algorithm of that name over `primal`, without neighbours yet; JobError for impossible settings.

    `layers` are the model's, in the order of the primal; none: it is all one layer.
    """
    kind = _find(options)
    _check_step(kind, step)
    return kind.build(options, primal, step, layers)


def build_client(options: AlgorithmOptions, primal: Tensor, step: LocalStep) -> Client:
    """A client of the server algorithm of that name, over `primal`; JobError for impossible settings."""
    kind = _CLIENTS.get(options.name)
    if kind is None:
        raise JobError(unknown("algorithm with a server", options.name, _CLIENTS))
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
    if options.name in _CLIENTS:
        raise JobError(f"{options.name} needs a server, which no deployment has; only `concord simulate` runs it")
    if kind is None:
        raise JobError(unknown("algorithm", options.name, _ALGORITHMS))
    return kind


def _check_step(kind: type[BaseAlgorithm] | type[Client], step: LocalStep) -> None:
    require_positive("learning_rate", step.rate)
    if step.steps < kind.fewest_steps:
        raise JobError(f"local_steps is {step.steps}; {kind.name} needs at least {kind.fewest_steps}")
