"""Each algorithm against a plain reference for sites in lock-step, written from the equations alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from concord.consensus.algorithm import LocalStep
from concord.consensus.graph import Topology, build_topology
from concord.consensus.mixing_time import slowest_mixing
from concord.consensus.registry import AlgorithmOptions
from fleet import Fleet, Pace, Quadratics

SITES = tuple("abcdef")
MU, K = 0.07, 5
TICKS = 83
"""Not a multiple of K: it ends in the middle of a round."""
START = torch.linspace(-1, 1, 6, dtype=torch.float64)
IRREGULAR = build_topology("edges", SITES, edges=["ab", "bc", "cd", "de", "bd", "bf", "af"])

Models = dict[str, Tensor]
Reference = Callable[[Topology, Quadratics], Models]


def ecl(penalty: Callable[[str, str], float], theta: float) -> Reference:
    """The form with duals z and signs A = +-I, as published (KDD 2020, ICML 2021)."""

    def run(graph: Topology, problem: Quadratics) -> Models:
        sign = {(i, j): 1.0 if i < j else -1.0 for i in SITES for j in graph.neighbours(i)}
        w = dict.fromkeys(SITES, START)
        z = {edge: sign[edge] * START for edge in sign}
        for tick in range(1, TICKS + 1):
            for i in SITES:
                near = graph.neighbours(i)
                pull = sum(penalty(i, j) * sign[i, j] * z[i, j] for j in near)
                inverse = 1 / MU + sum(penalty(i, j) for j in near)
                w[i] = (w[i] / MU - problem.gradients[i](w[i]) + pull) / inverse
            if tick % K == 0:
                y = {(i, j): z[i, j] - 2 * sign[i, j] * w[i] for i, j in z}
                z = {(i, j): (1 - theta) * z[i, j] + theta * y[j, i] for i, j in z}
        return w

    return run


def sm_ecl(theta: float) -> Reference:
    """A message arrives every K steps: the interval as of the last is always K, and every edge is fresh."""

    def run(graph: Topology, problem: Quadratics) -> Models:
        degrees = {(i, j): (graph.degree(i), graph.degree(j)) for i in SITES for j in graph.neighbours(i)}
        eta = {edge: 1 / (0.25 * 7 * MU * min(max(both), 2 * min(both))) for edge, both in degrees.items()}
        w, q, v = dict.fromkeys(SITES, START), dict.fromkeys(SITES, 0 * START), dict.fromkeys(SITES, 0 * START)
        u = dict.fromkeys(eta, START)
        tau = max(20 * theta, (2 + theta) * slowest_mixing(graph.edges)) * K
        for tick in range(TICKS):
            r = (tick + 1) / (tick + 1 + tau)
            beta, boost = 1 - 1 / min(tick + 1, 6 * max(K, 8)), 1 + 2 * math.exp(-2 * (tick + 1) / tau)
            for i in SITES:
                near = graph.neighbours(i)
                q[i] = beta * q[i] + (1 - beta) * problem.gradients[i](w[i])
                for j in near:
                    u[i, j] = u[i, j] + 0.9 * r * v[i]
                pull = sum(eta[i, j] * u[i, j] for j in near)
                new = w[i] / 2 + r * v[i] / 2 + (pull - boost * q[i]) / sum(eta[i, j] for j in near) / 2
                v[i] = v[i] + (new - w[i] - v[i]) / tau
                w[i] = new
            if (tick + 1) % K == 0:
                u = {(i, j): (1 - theta) * u[i, j] + theta * (2 * w[j] - u[j, i]) for i, j in u}
        return w

    return run


def gossip(graph: Topology, problem: Quadratics) -> Models:
    w = dict.fromkeys(SITES, START)
    for tick in range(TICKS):
        if tick % K == 0 and tick > 0:
            sent = dict(w)
            for i in SITES:
                for j in graph.neighbours(i):
                    w[i] = (w[i] + sent[j]) / 2
        for i in SITES:
            w[i] = w[i] - MU * problem.gradients[i](w[i])
    return w


def metropolis(graph: Topology) -> dict[tuple[str, str], float]:
    """W by (row, column), the diagonal included."""
    weights = {(i, j): 1 / (1 + max(graph.degree(i), graph.degree(j))) for i in SITES for j in graph.neighbours(i)}
    return weights | {(i, i): 1 - sum(weights[i, j] for j in graph.neighbours(i)) for i in SITES}


def dpsgd(graph: Topology, problem: Quadratics) -> Models:
    weights = metropolis(graph)
    w = dict.fromkeys(SITES, START)
    for tick in range(TICKS):
        slopes = {i: problem.gradients[i](w[i]) for i in SITES}
        if tick % K == 0:
            w = {i: torch.stack([weights.get((i, j), 0.0) * w[j] for j in SITES]).sum(0) for i in SITES}
        w = {i: w[i] - MU * slopes[i] for i in SITES}
    return w


def dpsgd_every_step(graph: Topology, problem: Quadratics) -> Models:
    weights = metropolis(graph)
    w, sent = dict.fromkeys(SITES, START), dict.fromkeys(SITES, START)
    for tick in range(TICKS):
        for i in SITES:
            slope = problem.gradients[i](w[i])
            if tick >= K:
                w[i] = weights[i, i] * w[i] + sum(weights[i, j] * sent[j] for j in graph.neighbours(i))
            w[i] = w[i] - MU * slope
        if (tick + 1) % K == 0:
            sent = dict(w)
    return w


def gradient_tracking(graph: Topology, problem: Quadratics) -> Models:
    """With matrices: W in a round's first step, the identity in the others."""
    weights = metropolis(graph)
    mixing = torch.tensor([[weights.get((i, j), 0.0) for j in SITES] for i in SITES], dtype=torch.float64)
    w = START.repeat(len(SITES), 1)
    s = g = torch.zeros_like(w)
    for tick in range(TICKS):
        matrix = mixing if tick % K == 0 else torch.eye(len(SITES), dtype=torch.float64)
        new = torch.stack([problem.gradients[site](row) for site, row in zip(SITES, w, strict=True)])
        s = matrix @ s + new - g
        w, g = matrix @ w - MU * s, new
    return dict(zip(SITES, w, strict=True))


def local(graph: Topology, problem: Quadratics) -> Models:
    w = dict.fromkeys(SITES, START)
    for _ in range(TICKS):
        w = {i: w[i] - MU * problem.gradients[i](w[i]) for i in SITES}
    return w


def even(i: str, j: str) -> float:
    return 0.8


def isvr(i: str, j: str) -> float:
    return 1 / (MU * max(IRREGULAR.degree(i), IRREGULAR.degree(j)) * (K - 1))


CASES: list[tuple[AlgorithmOptions, Reference]] = [
    (AlgorithmOptions("ecl", penalty=0.8, averaging=1.0), ecl(even, 1.0)),
    (AlgorithmOptions("ecl", penalty=0.8, averaging=0.5), ecl(even, 0.5)),
    (AlgorithmOptions("ecl-isvr", averaging=1.0), ecl(isvr, 1.0)),
    (AlgorithmOptions("ecl-isvr"), ecl(isvr, 0.5)),
    (AlgorithmOptions("sm-ecl", averaging=1.0), sm_ecl(1.0)),
    (AlgorithmOptions("sm-ecl"), sm_ecl(0.75)),
    (AlgorithmOptions("gossip"), gossip),
    (AlgorithmOptions("dpsgd"), dpsgd),
    (AlgorithmOptions("dpsgd-every-step"), dpsgd_every_step),
    (AlgorithmOptions("gradient-tracking"), gradient_tracking),
    (AlgorithmOptions("local"), local),
]


@pytest.mark.parametrize(("options", "reference"), CASES, ids=[f"{o.name}-{o.averaging}" for o, _ in CASES])
def test_agrees_with_the_reference(options: AlgorithmOptions, reference: Reference) -> None:
    problem = Quadratics.draw(SITES, dim=len(START), seed=4)
    fleet = Fleet(IRREGULAR, problem.gradients, START, options, LocalStep(MU, K), Pace(lock_step=True))
    fleet.run(TICKS)
    wanted = reference(IRREGULAR, problem)
    torch.testing.assert_close(fleet.models(), torch.stack([wanted[i] for i in SITES]), rtol=1e-12, atol=1e-12)


def test_isvr_with_equal_degrees_is_the_two_line_optimiser() -> None:
    """w <- (1 - 1/K)(w - mu g) + (1/K) mean of the anchors."""
    ring = build_topology("ring", SITES)
    problem = Quadratics.draw(SITES, dim=len(START), seed=5)
    fleet = Fleet(
        ring,
        problem.gradients,
        START,
        AlgorithmOptions("ecl-isvr", averaging=1.0),
        LocalStep(MU, K),
        Pace(lock_step=True),
    )
    w = dict.fromkeys(SITES, START)
    u = {(i, j): START for i in SITES for j in ring.neighbours(i)}
    for tick in range(1, TICKS + 1):
        for i in SITES:
            mean = torch.stack([u[i, j] for j in ring.neighbours(i)]).mean(0)
            w[i] = (1 - 1 / K) * (w[i] - MU * problem.gradients[i](w[i])) + mean / K
        if tick % K == 0:
            u = {(i, j): 2 * w[j] - u[j, i] for i, j in u}
    fleet.run(TICKS)
    torch.testing.assert_close(fleet.models(), torch.stack([w[i] for i in SITES]), rtol=1e-12, atol=1e-12)
