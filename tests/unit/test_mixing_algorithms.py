"""Where the algorithms that average models end up: off the optimum by what theory says, or exact in lock-step only."""

from __future__ import annotations

import pytest
import torch

from concord.consensus.algorithm import EdgeEnd, EdgeTerms, LocalStep
from concord.consensus.graph import Topology, build_topology
from concord.consensus.registry import AlgorithmOptions, build_algorithm, edge_terms
from fleet import Fleet, Link, Pace, Quadratics

SITES = tuple("abcdef")
DIM = 8
STEP = LocalStep(rate=0.02, steps=4)
GRAPH = build_topology("edges", SITES, edges=["ab", "bc", "cd", "de", "bd", "bf", "af"])
BAD_LINK = Link(loss=0.3, duplication=0.3, delay=12)
UNEQUAL = Pace(speeds={"a": 0.5, "d": 0.7})
LOCK_STEP = Pace(lock_step=True)


@pytest.fixture(scope="module")
def problem() -> Quadratics:
    return Quadratics.draw(SITES, DIM, seed=2)


def fleet_of(name: str, problem: Quadratics, pace: Pace, link: Link, step: LocalStep = STEP) -> Fleet:
    start = torch.zeros(DIM, dtype=torch.float64)
    return Fleet(GRAPH, problem.gradients, start, AlgorithmOptions(name), step, pace, link)


def weights(graph: Topology) -> torch.Tensor:
    """The Metropolis matrix of a graph, from its definition."""
    matrix = torch.zeros(len(SITES), len(SITES), dtype=torch.float64)
    for row, i in enumerate(SITES):
        for column, j in enumerate(SITES):
            if j in graph.neighbours(i):
                matrix[row, column] = 1 / (1 + max(graph.degree(i), graph.degree(j)))
    return matrix + torch.diag(1 - matrix.sum(1))


def resting_point(problem: Quadratics, rate: float) -> torch.Tensor:
    """The models (sites, d) at which (I - W) w + rate grad f(w) = 0, by one linear solve for all sites together."""
    identity = torch.eye(DIM, dtype=torch.float64)
    pull = torch.kron(torch.eye(len(SITES), dtype=torch.float64) - weights(GRAPH), identity)
    curvature = torch.block_diag(*(problem.curvatures[site] for site in SITES))
    centres = torch.cat([problem.centres[site] for site in SITES])
    return torch.linalg.solve(pull + rate * curvature, rate * curvature @ centres).view(len(SITES), DIM)


@pytest.mark.parametrize(("pace", "link"), [(LOCK_STEP, Link()), (UNEQUAL, BAD_LINK)], ids=["lock-step", "bad network"])
def test_averaging_at_every_step_rests_where_gradients_balance_the_pull(
    problem: Quadratics, pace: Pace, link: Link
) -> None:
    fleet = fleet_of("dpsgd-every-step", problem, pace, link)
    fleet.run(5000)
    wanted = resting_point(problem, STEP.rate)
    torch.testing.assert_close(fleet.models(), wanted, rtol=0, atol=1e-9)
    assert float((wanted - problem.optimum()).abs().max()) > 0.05


def test_averaging_once_per_step_in_lock_step_is_the_published_algorithm(problem: Quadratics) -> None:
    """With K = 1, D-PSGD's own resting point is that of averaging at every step."""
    fleet = fleet_of("dpsgd", problem, LOCK_STEP, Link(), LocalStep(STEP.rate, 1))
    fleet.run(2000)
    torch.testing.assert_close(fleet.models(), resting_point(problem, STEP.rate), rtol=0, atol=1e-9)


def test_averaging_once_per_round_is_farther_off_the_longer_the_round(problem: Quadratics) -> None:
    distances = []
    for steps in (1, 4, 16):
        fleet = fleet_of("dpsgd", problem, LOCK_STEP, Link(), LocalStep(STEP.rate, steps))
        fleet.run(3200)
        distances.append(float((fleet.models() - problem.optimum()).abs().max()))
    assert distances == sorted(distances)


def test_gradient_tracking_is_exact_in_lock_step(problem: Quadratics) -> None:
    fleet = fleet_of("gradient-tracking", problem, LOCK_STEP, Link())
    assert fleet.run_until(problem.optimum(), 1e-9, 20_000) <= 1e-9


def test_gradient_tracking_keeps_its_sum_in_lock_step(problem: Quadratics) -> None:
    fleet = fleet_of("gradient-tracking", problem, LOCK_STEP, Link())
    fleet.run(30)
    states = [fleet.algorithm(site).state() for site in SITES]
    tracked, newest = (torch.stack([state[key] for state in states]).sum(0) for key in ("tracker", "before"))
    torch.testing.assert_close(tracked, newest)


def test_gradient_tracking_is_biased_on_a_real_network(problem: Quadratics) -> None:
    fleet = fleet_of("gradient-tracking", problem, UNEQUAL, BAD_LINK)
    assert fleet.run_until(problem.optimum(), 1e-9, 6000) > 0.05


@pytest.mark.parametrize("name", ["dpsgd", "dpsgd-every-step"])
def test_a_neighbour_not_heard_yet_has_no_weight(name: str) -> None:
    algorithm = build_algorithm(AlgorithmOptions(name), torch.zeros(1, dtype=torch.float64), LocalStep(0.1, 1))
    for neighbour in ("heard", "not"):
        algorithm.add_neighbour(neighbour, EdgeTerms(averaging=1 / 4))
    still = torch.zeros(1, dtype=torch.float64)
    algorithm.local_step(still)
    algorithm.absorb("heard", {"model": torch.full((1,), 3.0, dtype=torch.float64)})
    algorithm.local_step(still)
    # Its own half and the quarter of the one that was heard, scaled up to sum to one.
    torch.testing.assert_close(algorithm.primal, torch.full_like(still, 3.0 * (1 / 4) / (3 / 4)))


def test_a_row_keeps_a_share_for_itself_when_edges_are_of_different_times() -> None:
    """Three edges of degree-one terms would leave less than nothing."""
    algorithm = build_algorithm(AlgorithmOptions("dpsgd"), torch.zeros(1), LocalStep(0.1, 1))
    end = EdgeEnd(STEP, 1)
    for neighbour in "xyz":
        algorithm.add_neighbour(neighbour, edge_terms(AlgorithmOptions("dpsgd"), end, end))
        algorithm.absorb(neighbour, {"model": torch.ones(1)})
    for _ in range(2):
        algorithm.local_step(torch.zeros(1))
    assert 0 < float(algorithm.primal) < 1
