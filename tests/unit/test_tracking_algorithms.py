"""The algorithms that average after they descend, against the published recursions written with matrices, in lock-step.

Also where each rests: at the optimum, or off it as its description says, and what a lossy network makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from concord.consensus.algorithm import Algorithm, EdgeEnd, LocalStep
from concord.consensus.graph import Topology, build_topology
from concord.consensus.registry import AlgorithmOptions, build_algorithm, edge_terms
from concord.errors import UpdateRefused
from fleet import Fleet, Link, Pace, Quadratics

SITES = tuple("abcdef")
DIM = 5
RATE = 0.03
RING = build_topology("ring", SITES)
TREE = build_topology("edges", SITES, edges=["ab", "bc", "bd", "de", "df"])
BAD_LINK = Link(loss=0.3, duplication=0.3, delay=12)
UNEQUAL = Pace(speeds={"a": 0.5, "d": 0.7})
LOCK_STEP = Pace(lock_step=True)


@pytest.fixture(scope="module")
def problem() -> Quadratics:
    return Quadratics.draw(SITES, DIM, seed=3)


class LockStep:
    """All sites step K times, then all messages are made, then all are absorbed."""

    def __init__(self, problem: Quadratics, graph: Topology, name: str, step: LocalStep) -> None:
        options = AlgorithmOptions(name)
        self._gradients, self._steps = problem.gradients, step.steps
        self._graph = graph
        self.sites: Mapping[str, Algorithm] = {
            site: build_algorithm(options, torch.zeros(DIM, dtype=torch.float64), step) for site in SITES
        }
        for site, algorithm in self.sites.items():
            ours = EdgeEnd(step, graph.degree(site))
            for other in graph.neighbours(site):
                algorithm.add_neighbour(other, edge_terms(options, ours, EdgeEnd(step, graph.degree(other))))

    def do_round(self) -> Tensor:
        """The models (sites, d) after one round."""
        for _ in range(self._steps):
            for site, algorithm in self.sites.items():
                algorithm.local_step(self._gradients[site](algorithm.primal))
        messages = {
            (site, other): self.sites[site].outgoing(other) for site in SITES for other in self._graph.neighbours(site)
        }
        for (site, other), message in messages.items():
            self.sites[other].absorb(site, message)
        return torch.stack([algorithm.primal for algorithm in self.sites.values()])


def metropolis(graph: Topology) -> Tensor:
    matrix = torch.zeros(len(SITES), len(SITES), dtype=torch.float64)
    for row, i in enumerate(SITES):
        for column, j in enumerate(SITES):
            if j in graph.neighbours(i):
                matrix[row, column] = 1 / (1 + max(graph.degree(i), graph.degree(j)))
    return matrix + torch.diag(1 - matrix.sum(1))


def slopes(problem: Quadratics) -> Callable[[Tensor], Tensor]:
    return lambda models: torch.stack(
        [problem.gradients[site](model) for site, model in zip(SITES, models, strict=True)]
    )


def test_d2_is_the_published_recursion(problem: Quadratics) -> None:
    run = LockStep(problem, RING, "d2", LocalStep(RATE, 1))
    gradient, half = slopes(problem), (torch.eye(len(SITES), dtype=torch.float64) + metropolis(RING)) / 2
    before = torch.zeros(len(SITES), DIM, dtype=torch.float64)
    now = half @ (before - RATE * gradient(before))
    torch.testing.assert_close(run.do_round(), now, rtol=0, atol=1e-12)
    for _ in range(50):
        now, before = half @ (2 * now - before - RATE * (gradient(now) - gradient(before))), now
        torch.testing.assert_close(run.do_round(), now, rtol=0, atol=1e-11)


def test_qg_dsgdm_is_the_published_recursion(problem: Quadratics) -> None:
    run = LockStep(problem, RING, "qg-dsgdm", LocalStep(RATE, 1))
    gradient, mixing, factor = slopes(problem), metropolis(RING), AlgorithmOptions().momentum
    now = torch.zeros(len(SITES), DIM, dtype=torch.float64)
    momentum = torch.zeros_like(now)
    for _ in range(50):
        after = mixing @ (now - RATE * (factor * momentum + (1 - factor) * gradient(now)))
        momentum = factor * momentum + (1 - factor) * (now - after) / RATE
        now = after
        torch.testing.assert_close(run.do_round(), now, rtol=0, atol=1e-12)


def test_momentum_tracking_tracks_the_mean_momentum(problem: Quadratics) -> None:
    """DIGing with the momentum in place of the gradient, averages first as `gradient_tracking` has them."""
    run = LockStep(problem, RING, "momentum-tracking", LocalStep(RATE, 1))
    gradient, mixing, factor = slopes(problem), metropolis(RING), AlgorithmOptions().momentum
    now = torch.zeros(len(SITES), DIM, dtype=torch.float64)
    tracker, momentum = torch.zeros_like(now), torch.zeros_like(now)
    for number in range(50):
        previous, momentum = momentum, factor * momentum + (1 - factor) * gradient(now)
        mixes = mixing if number else torch.eye(len(SITES), dtype=torch.float64)  # nothing was heard before
        tracker = mixes @ tracker + momentum - previous
        now = mixes @ now - RATE * tracker
        torch.testing.assert_close(run.do_round(), now, rtol=0, atol=1e-12)


def test_relay_sgd_averages_with_models_as_old_as_they_are_far(problem: Quadratics) -> None:
    """The published form of the algorithm: site i averages x_j of d(i, j) - 1 rounds ago."""
    run = LockStep(problem, TREE, "relay-sgd", LocalStep(RATE, 1))
    gradient = slopes(problem)
    distances = {(i, j): len(path) for i in range(len(SITES)) for j, path in enumerate(_paths(TREE, SITES[i]))}
    history: list[Tensor] = []
    now = torch.zeros(len(SITES), DIM, dtype=torch.float64)
    for _ in range(40):
        history.append(now - RATE * gradient(now))
        rows = []
        for i in range(len(SITES)):
            ages = [max(distances[i, j] - 1, 0) for j in range(len(SITES))]
            heard = [history[-1 - age][j] for j, age in enumerate(ages) if age < len(history)]
            rows.append(torch.stack(heard).mean(0))
        now = torch.stack(rows)
        torch.testing.assert_close(run.do_round(), now, rtol=0, atol=1e-12)


def _paths(graph: Topology, start: str) -> list[list[str]]:
    """The edges' ends passed from `start` to each site of a tree, in the order of SITES."""
    found: dict[str, list[str]] = {start: []}
    queue = [start]
    while queue:
        here = queue.pop()
        for other in graph.neighbours(here):
            if other not in found:
                found[other] = [*found[here], other]
                queue.append(other)
    return [found[site] for site in SITES]


def test_ad_psgd_averages_with_those_who_chose_each_other(problem: Quadratics) -> None:
    """One after the other, along gradients of the models before; neighbours are chosen in turn."""
    run = LockStep(problem, RING, "ad-psgd", LocalStep(RATE, 1))
    before = run.do_round().clone()
    for number in range(40):
        chosen = {site: sorted(RING.neighbours(site))[number % 2] for site in SITES}
        rows = []
        for row, site in enumerate(SITES):
            model = before[row]
            for other in sorted(RING.neighbours(site)):
                if chosen[site] == other or chosen[other] == site:
                    model = (model + before[SITES.index(other)]) / 2
            rows.append(model - RATE * problem.gradients[site](before[row]))
        before = torch.stack(rows)
        torch.testing.assert_close(run.do_round(), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "graph", "steps"),
    [("d2", RING, 1), ("d2", RING, 4), ("momentum-tracking", RING, 4), ("relay-sgd", TREE, 1)],
)
def test_it_reaches_the_optimum_in_lock_step(problem: Quadratics, name: str, graph: Topology, steps: int) -> None:
    run = LockStep(problem, graph, name, LocalStep(RATE, steps))
    for _ in range(4000):
        models = run.do_round()
    torch.testing.assert_close(models, problem.optimum().expand_as(models), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "least"), [("qg-dsgdm", 0.005), ("ad-psgd", 0.02)])
def test_it_stops_short_of_the_optimum_in_lock_step(problem: Quadratics, name: str, least: float) -> None:
    run = LockStep(problem, RING, name, LocalStep(RATE, 4))
    for _ in range(1500):
        models = run.do_round()
    distance = float((models - problem.optimum()).abs().max())
    assert least < distance < 1.0


@pytest.mark.parametrize(("name", "least"), [("d2", 0.01), ("momentum-tracking", 0.01)])
def test_what_rests_on_a_sum_is_biased_on_a_real_network(problem: Quadratics, name: str, least: float) -> None:
    start = torch.zeros(DIM, dtype=torch.float64)
    step = LocalStep(RATE, 4)
    fleet = Fleet(RING, problem.gradients, start, AlgorithmOptions(name), step, UNEQUAL, BAD_LINK)
    assert fleet.run_until(problem.optimum(), 1e-9, 6000) > least


def test_relay_sgd_forgives_what_is_lost(problem: Quadratics) -> None:
    """What stands at a site is old, not wrong: as near the optimum as with no loss at the same rounds."""
    ends = []
    for link in (Link(), BAD_LINK):
        start = torch.zeros(DIM, dtype=torch.float64)
        fleet = Fleet(
            TREE, problem.gradients, start, AlgorithmOptions("relay-sgd"), LocalStep(RATE, 1), LOCK_STEP, link
        )
        ends.append(fleet.run_until(problem.optimum(), 1e-9, 8000))
    assert max(ends) <= 1e-9


def test_a_mean_of_no_model_is_refused() -> None:
    algorithm = build_algorithm(AlgorithmOptions("relay-sgd"), torch.zeros(2), LocalStep(RATE, 1))
    end = EdgeEnd(LocalStep(RATE, 1), 1)
    algorithm.add_neighbour("n", edge_terms(AlgorithmOptions("relay-sgd"), end, end))
    with pytest.raises(UpdateRefused, match="1 model or more"):
        algorithm.absorb("n", {"mean": torch.ones(2), "count": torch.tensor([0])})
    assert not algorithm.primal.any()
