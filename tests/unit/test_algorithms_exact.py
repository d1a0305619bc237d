"""Where algorithms end up: the optimum of all sites' data, whatever the network does to their messages."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from concord.consensus.algorithm import EdgeEnd, LocalStep
from concord.consensus.graph import Topology, build_topology
from concord.consensus.registry import AlgorithmOptions, edge_terms
from concord.consensus.vectors import Layer
from fleet import Fleet, Link, Pace, Quadratics

SITES = tuple(f"N{number}" for number in range(1, 9))
DIM = 20
STEP = LocalStep(rate=0.1, steps=8)
BAD_LINK = Link(loss=0.3, duplication=0.3, delay=12)
UNEQUAL = Pace(speeds={site: 1 - 0.1 * number for number, site in enumerate(SITES)})
LIMIT = 40_000
"""Ticks within which everything here converges; most need a tenth."""


def random_tree_and_more(sites: tuple[str, ...], extra: int, seed: int) -> Topology:
    """A random tree with some more edges: an irregular graph, on which a penalty per site would be wrong."""
    generator = random.Random(seed)
    tree = [(site, generator.choice(sites[:number])) for number, site in enumerate(sites) if number]
    more = [tuple(generator.sample(sites, 2)) for _ in range(extra)]
    return build_topology("edges", sites, edges=[*tree, *more])


TOPOLOGIES: Mapping[str, Topology] = {
    **{kind: build_topology(kind, SITES) for kind in ("ring", "star", "chain")},
    "random": random_tree_and_more(SITES, extra=4, seed=3),
}
EXACT: Mapping[str, AlgorithmOptions] = {
    "ecl-pdmm": AlgorithmOptions("ecl"),
    "ecl-admm": AlgorithmOptions("ecl", averaging=0.5),
    "isvr-pdmm": AlgorithmOptions("ecl-isvr"),
    "isvr-admm": AlgorithmOptions("ecl-isvr", averaging=0.5),
    "isvr-adam": AlgorithmOptions("ecl-isvr", preconditioner="adam"),
    "sm-ecl": AlgorithmOptions("sm-ecl"),
    "sm-ecl-pdmm": AlgorithmOptions("sm-ecl", averaging=1.0),
}
LOCK_STEP = {
    **EXACT,
    # Moving anchors turn the undamped swing of theta = 1 in perfect lock-step into a growing one.
    "sm-ecl-pdmm": AlgorithmOptions("sm-ecl", averaging=0.9),
}
exact = pytest.mark.parametrize("options", EXACT.values(), ids=EXACT)


@pytest.fixture(scope="module")
def problem() -> Quadratics:
    return Quadratics.draw(SITES, DIM)


def fleet_on(
    problem: Quadratics,
    options: AlgorithmOptions,
    topology: Topology = TOPOLOGIES["ring"],
    pace: Pace = UNEQUAL,
    link: Link = BAD_LINK,
    seed: int = 0,
) -> Fleet:
    start = torch.zeros(DIM, dtype=torch.float64)
    return Fleet(topology, problem.gradients, start, options, STEP, pace, link, seed)


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
@exact
def test_exact_on_a_bad_network(problem: Quadratics, options: AlgorithmOptions, topology: Topology) -> None:
    fleet = fleet_on(problem, options, topology)
    assert fleet.run_until(problem.optimum(), 1e-9, LIMIT) <= 1e-9


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_sm_ecl_is_exact_whatever_the_reaches_of_the_layers(problem: Quadratics, topology: Topology) -> None:
    start = torch.linspace(0.1, 1.0, DIM, dtype=torch.float64)
    layers = (Layer(4), Layer(6), Layer(DIM - 10))
    options = AlgorithmOptions("sm-ecl")
    fleet = Fleet(topology, problem.gradients, start, options, STEP, UNEQUAL, BAD_LINK, layers=layers)
    reach = fleet.algorithm("N1").state()["reach"]
    assert float(reach.max()) > 10 * float(reach.min())
    fleet.restart("N1")
    assert fleet.run_until(problem.optimum(), 1e-9, LIMIT) <= 1e-9


@given(
    name=st.sampled_from(sorted(EXACT)),
    count=st.integers(2, 5),
    extra=st.integers(0, 3),
    speeds=st.lists(st.floats(0.3, 1), min_size=5, max_size=5),
    link=st.builds(Link, st.floats(0, 0.3), st.floats(0, 1), st.integers(0, 16)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=12, deadline=None)
def test_exact_on_any_small_network(
    name: str, count: int, extra: int, speeds: list[float], link: Link, seed: int
) -> None:
    sites = SITES[:count]
    problem = Quadratics.draw(sites, DIM, seed)
    pace = Pace(speeds=dict(zip(sites, speeds, strict=False)))
    topology = random_tree_and_more(sites, extra, seed)
    fleet = fleet_on(problem, EXACT[name], topology, pace, link, seed)
    assert fleet.run_until(problem.optimum(), 1e-9, LIMIT) <= 1e-9


@pytest.mark.parametrize("options", LOCK_STEP.values(), ids=LOCK_STEP)
def test_exact_in_lock_step(problem: Quadratics, options: AlgorithmOptions) -> None:
    """Where both ends send in the same tick a message computed too late would keep a wrong point for ever."""
    fleet = fleet_on(problem, options, pace=Pace(lock_step=True), link=Link())
    assert fleet.run_until(problem.optimum(), 1e-9, LIMIT) <= 1e-9


@pytest.mark.parametrize("name", ["gossip", "dpsgd", "dpsgd-every-step", "local"])
def test_the_baselines_stay_off(problem: Quadratics, name: str) -> None:
    fleet = fleet_on(problem, AlgorithmOptions(name))
    assert fleet.run_until(problem.optimum(), 1e-9, 4000) > 0.1


@exact
def test_a_departure_gives_the_optimum_of_the_rest(problem: Quadratics, options: AlgorithmOptions) -> None:
    fleet = fleet_on(problem, options, TOPOLOGIES["random"])
    fleet.run(600)
    leaf = next(site for site in SITES if TOPOLOGIES["random"].degree(site) == 1)
    fleet.drop_site(leaf)
    rest = [site for site in SITES if site != leaf]
    assert fleet.run_until(problem.optimum(rest), 1e-9, LIMIT, rest) <= 1e-9


@exact
def test_an_outage_leaves_no_trace(problem: Quadratics, options: AlgorithmOptions) -> None:
    fleet = fleet_on(problem, options)
    fleet.run(200)
    fleet.asleep.add("N3")
    fleet.run(1500)
    fleet.asleep.remove("N3")
    assert fleet.run_until(problem.optimum(), 1e-9, LIMIT) <= 1e-9


@exact
def test_a_silent_neighbours_data_still_counts(problem: Quadratics, options: AlgorithmOptions) -> None:
    fleet = fleet_on(problem, options)
    fleet.run_until(problem.optimum(), 1e-11, LIMIT)
    fleet.asleep.add("N3")
    fleet.run(3000)
    assert float((fleet.models() - problem.optimum()).abs().max()) <= 1e-9


@pytest.mark.parametrize("heard", [0, 1, 3, 50])
@pytest.mark.parametrize("name", ["sm-ecl", "sm-ecl-pdmm"])
def test_a_neighbour_gone_for_ever_leaves_a_still_pull(problem: Quadratics, name: str, heard: int) -> None:
    """However little was heard of it its anchors stop: the rest reach the optimum of their data and two springs."""
    options = EXACT[name]
    fleet = fleet_on(problem, options, pace=Pace())
    while any(fleet.algorithm(near).state()["arrivals/N3"][1] < heard for near in ("N2", "N4")):
        fleet.run(1)
    fleet.asleep.add("N3")
    fleet.run(6000 if options.averaging == 1 else 9000)  # half of each message is slower
    rest = [site for site in SITES if site != "N3"]
    end = EdgeEnd(STEP, 2)
    penalty = edge_terms(options, end, end).penalty
    curvature = sum(problem.curvatures[site] for site in rest) + 2 * penalty * torch.eye(DIM, dtype=torch.float64)
    anchors = sum(fleet.algorithm(near).state()["anchor/N3"] for near in ("N2", "N4"))
    pull = sum(problem.curvatures[site] @ problem.centres[site] for site in rest) + penalty * anchors
    target = torch.linalg.solve(curvature, pull)
    assert float((fleet.models(rest) - target).abs().max()) <= 1e-9


@exact
def test_restarts_from_checkpoints_change_not_one_bit(problem: Quadratics, options: AlgorithmOptions) -> None:
    steady, shaken = fleet_on(problem, options), fleet_on(problem, options)
    for number in range(8):
        for fleet in (steady, shaken):
            fleet.run(25)
        shaken.restart(SITES[number])
    assert torch.equal(steady.models(), shaken.models())


@exact
def test_the_same_seed_gives_the_same_run(problem: Quadratics, options: AlgorithmOptions) -> None:
    runs = [fleet_on(problem, options, seed=seed) for seed in (1, 1, 2)]
    for fleet in runs:
        fleet.run(60)
    first, again, other = (fleet.models() for fleet in runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def _two_regions(sites: Sequence[str]) -> Topology:
    """Two halves in which all are neighbours, and one edge between them."""
    half = len(sites) // 2
    within = {pair for part in (sites[:half], sites[half:]) for pair in itertools.combinations(sorted(part), 2)}
    return Topology(tuple(sites), frozenset({*within, (sites[0], sites[half])}))


@pytest.mark.parametrize("theta", [0.5, 1.0])
@pytest.mark.parametrize("kind", ["chain", "two regions"])
def test_sites_of_slow_graphs_with_nothing_to_learn_come_to_agree(kind: str, theta: float) -> None:
    """What each takes for common motion must not carry them apart, as it does where the graph is not thought of."""
    sites = [f"N{number:02}" for number in range(10)]
    topology = _two_regions(sites) if kind == "two regions" else build_topology(kind, sites)
    options, step = AlgorithmOptions("sm-ecl", averaging=theta), LocalStep(rate=0.1, steps=8)
    still = dict.fromkeys(sites, torch.zeros_like)
    fleet = Fleet(topology, still, torch.zeros(4, dtype=torch.float64), options, step, link=Link(loss=0.2, delay=8))
    for number, site in enumerate(sites):
        fleet.algorithm(site).primal.fill_(math.cos(math.pi * number / 10))  # the slowest disagreement on a chain
    fleet.run(200 * step.steps)
    before = float(fleet.models().std(dim=0).max())
    fleet.run(800 * step.steps)
    assert float(fleet.models().std(dim=0).max()) < before / 2
