"""Sites leave and come back, terms change, ends disagree for a while: where all end is where they would have ended.

Quadratics with a known optimum, over a bad network. An ordinary step is what one step of plain descent is: the step
size times the longest gradient that any site has of its own data.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from concord.consensus.algorithm import EdgeEnd, EdgeTerms, LocalStep
from concord.consensus.graph import build_topology
from concord.consensus.registry import AlgorithmOptions, edge_terms
from fleet import Fleet, Link, Pace, Quadratics

SITES = tuple(f"N{number}" for number in range(1, 6))
LEAVER = "N3"
REST = tuple(site for site in SITES if site != LEAVER)
STEP = LocalStep(rate=0.1, steps=4)
LIMIT = 40_000
EXACT: Mapping[str, AlgorithmOptions] = {
    "ecl-pdmm": AlgorithmOptions("ecl"),
    "ecl-admm": AlgorithmOptions("ecl", averaging=0.5),
    "ecl-isvr": AlgorithmOptions("ecl-isvr"),
    "c-ecl": AlgorithmOptions("c-ecl", keep=0.5, penalty_scale=5.0),
    "sm-ecl": AlgorithmOptions("sm-ecl"),
}
STEADY = ("gossip", "dpsgd", "dpsgd-every-step", "qg-dsgdm")
"""Their rest is off the optimum, but in lock-step it is one point."""
LEAVING = {"sm-ecl": 4.0}
RETURNING = {"sm-ecl": 2.0}
"""By how many ordinary steps others may move at once, where it is more than one: SM-ECL steps further than plain
descent, and its velocity outlives the force of an edge that is gone."""
TRACKERS = ("gradient-tracking", "momentum-tracking", "d2")
exact = pytest.mark.parametrize("options", EXACT.values(), ids=EXACT)


class Changing(Fleet):
    """A fleet whose edges come, go and change; `disputed` edges carry nothing, as both ends refuse what comes."""

    def __init__(self, options: AlgorithmOptions, problem: Quadratics, pace: Pace, link: Link, kind: str) -> None:
        start = torch.zeros(problem.optimum().shape, dtype=torch.float64)
        super().__init__(build_topology(kind, SITES), problem.gradients, start, options, STEP, pace, link)
        self.disputed: set[tuple[str, str]] = set()
        self.refused = 0
        self._left: dict[str, set[tuple[str, str]]] = {}

    def drop_site(self, site: str) -> None:
        self._left[site] = {edge for edge in self.edges if site in edge}
        super().drop_site(site)

    def take_back(self, site: str) -> None:
        """The site begins where its neighbours are, as decision 0006 has it, with edges that remember nothing."""
        edges = self._left.pop(site)
        others = [name for edge in edges for name in edge if name != site]
        self.algorithm(site).primal.copy_(self.models(others).mean(dim=0))
        for left, right in sorted(edges):
            self.algorithm(left).add_neighbour(right, self._terms[left, right])
            self.algorithm(right).add_neighbour(left, self._terms[left, right])
        self.edges |= edges
        self.asleep.discard(site)

    def change_terms(self, edge: tuple[str, str], terms: EdgeTerms, *ends: str) -> None:
        """One end, or both, follow a decision that the edge has other terms."""
        for end in ends:
            self.algorithm(end).change_epoch(edge[1] if end == edge[0] else edge[0], terms)

    def _post(self, sender: str, receiver: str) -> None:
        if (min(sender, receiver), max(sender, receiver)) in self.disputed:
            self.refused += 1
        else:
            super()._post(sender, receiver)


@pytest.fixture(scope="module")
def problem() -> Quadratics:
    return Quadratics.draw(SITES, 6)


UNEQUAL = Pace(speeds={"N1": 0.9, "N2": 0.7, "N4": 0.8})
BAD_LINK = Link(loss=0.2, duplication=0.2, delay=6)


def fleet_on(
    problem: Quadratics,
    options: AlgorithmOptions,
    pace: Pace = UNEQUAL,
    link: Link = BAD_LINK,
    kind: str = "ring",
) -> Changing:
    return Changing(options, problem, pace, link, kind)


def ordinary_step(problem: Quadratics, fleet: Fleet) -> float:
    """Step size times the longest gradient, where the sites are now."""
    longest = [problem.gradients[site](model).norm() for site, model in zip(SITES, fleet.models(SITES), strict=True)]
    return STEP.rate * float(torch.stack(longest).max())


def longest_move(fleet: Fleet, ticks: int) -> float:
    """Of any site that stays, in one tick of the next ones."""
    longest, before = 0.0, fleet.models(REST)
    for _ in range(ticks):
        fleet.run(1)
        after = fleet.models(REST)
        longest = max(longest, float((after - before).norm(dim=1).max()))
        before = after
    return longest


@exact
def test_a_site_that_leaves_and_returns_changes_nothing_in_the_end(
    problem: Quadratics, options: AlgorithmOptions
) -> None:
    fleet = fleet_on(problem, options)
    assert fleet.run_until(problem.optimum(), 1e-7, LIMIT) <= 1e-7
    fleet.drop_site(LEAVER)
    assert fleet.run_until(problem.optimum(REST), 1e-7, LIMIT, REST) <= 1e-7
    fleet.take_back(LEAVER)
    assert fleet.run_until(problem.optimum(), 1e-7, LIMIT) <= 1e-7


@exact
@pytest.mark.parametrize("ticks_before", [40, 3000], ids=["under way", "at rest"])
def test_who_leaves_and_who_returns_makes_nobody_jump(
    problem: Quadratics, options: AlgorithmOptions, ticks_before: int
) -> None:
    fleet = fleet_on(problem, options)
    fleet.run(ticks_before)
    before = ordinary_step(problem, fleet)
    fleet.drop_site(LEAVER)
    assert 0 < longest_move(fleet, 40) <= LEAVING.get(options.name, 1.0) * before
    fleet.run(600)
    before = ordinary_step(problem, fleet)
    fleet.take_back(LEAVER)
    assert 0 < longest_move(fleet, 40) <= RETURNING.get(options.name, 1.0) * before


@exact
def test_ends_that_disagree_for_a_while_agree_in_the_end(problem: Quadratics, options: AlgorithmOptions) -> None:
    """A degree rises, so the penalty changes; one end hears of it long before the other."""
    fleet = fleet_on(problem, options)
    fleet.run(200)
    edge = ("N2", "N3")
    terms = edge_terms(options, EdgeEnd(STEP, 3), EdgeEnd(STEP, 2))
    fleet.disputed.add(edge)
    fleet.change_terms(edge, terms, "N2")
    fleet.run(300)
    fleet.change_terms(edge, terms, "N3")
    fleet.disputed.clear()
    assert fleet.refused > 50
    assert fleet.run_until(problem.optimum(), 1e-7, LIMIT) <= 1e-7


def rest_in_lock_step(problem: Quadratics, name: str, away: int) -> Tensor:
    kind = "chain" if name == "relay-sgd" else "ring"
    fleet = fleet_on(problem, AlgorithmOptions(name), Pace(lock_step=True), Link(), kind)
    fleet.run(400)
    if away:
        fleet.drop_site(LEAVER)
        fleet.run(away)
        fleet.take_back(LEAVER)
    fleet.run(3000)
    return fleet.models()


@pytest.mark.parametrize("name", [*STEADY, "relay-sgd"])
def test_averaging_comes_back_to_its_own_rest(problem: Quadratics, name: str) -> None:
    away, steady = rest_in_lock_step(problem, name, 40), rest_in_lock_step(problem, name, 0)
    assert float((away - steady).abs().max()) <= 1e-7


@pytest.mark.parametrize("name", TRACKERS)
def test_trackers_go_on_counting_who_has_left(problem: Quadratics, name: str) -> None:
    """What they remember of all data stays with those who stay: they rest at the optimum of all, not of the rest.

    The one that comes back brings its share with it. If it lost that on the way, all would be off for ever.
    """
    fleet = fleet_on(problem, AlgorithmOptions(name), Pace(lock_step=True), Link())
    fleet.run(400)
    fleet.drop_site(LEAVER)
    fleet.run(2000)
    assert float((fleet.models(REST) - problem.optimum(REST)).abs().max()) > 0.1
    assert float((fleet.models(REST) - problem.optimum()).abs().max()) <= 1e-4
    fleet.take_back(LEAVER)
    fleet.run(2000)
    assert float((fleet.models() - problem.optimum()).abs().max()) <= 1e-6
