"""C-ECL: what it is without compression, what the publication says, and that it is exact on a bad network."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from concord.consensus.algorithm import EdgeEnd, EdgeTerms, LocalStep
from concord.consensus.cecl import message_seed
from concord.consensus.compression import packing_of
from concord.consensus.graph import build_topology
from concord.consensus.registry import AlgorithmOptions, build_algorithm, edge_terms
from concord.errors import JobError, UpdateRefused
from concord.wire.codec import default_max_bytes
from fleet import Fleet, Link, Pace, Quadratics

SITES = tuple("abcdef")
DIM = 12
STEP = LocalStep(rate=0.1, steps=6)
GRAPH = build_topology("edges", SITES, edges=["ab", "bc", "cd", "de", "bd", "bf", "af"])
BAD_LINK = Link(loss=0.3, duplication=0.3, delay=12)
UNEQUAL = Pace(speeds={"a": 0.5, "d": 0.7})
START = torch.linspace(-1, 1, DIM, dtype=torch.float64)


def options(
    compression: str = "random-k",
    keep: float = 0.25,
    averaging: float = 1.0,
    number_format: str = "full",
    scale: float = 1.0,
) -> AlgorithmOptions:
    return AlgorithmOptions(
        "c-ecl",
        averaging=averaging,
        penalty_scale=scale,
        compression=compression,
        keep=keep,
        number_format=number_format,
    )


@pytest.fixture(scope="module")
def problem() -> Quadratics:
    return Quadratics.draw(SITES, DIM, seed=6)


def fleet_of(problem: Quadratics, settings: AlgorithmOptions, pace: Pace = UNEQUAL, link: Link = BAD_LINK) -> Fleet:
    return Fleet(GRAPH, problem.gradients, START, settings, STEP, pace, link)


@pytest.mark.parametrize("averaging", [1.0, 0.5])
@pytest.mark.parametrize("compression", ["none", "random-k"])
def test_telling_everything_it_is_ecl_isvr(problem: Quadratics, compression: str, averaging: float) -> None:
    runs = [
        fleet_of(problem, settings)
        for settings in (options(compression, 1.0, averaging), AlgorithmOptions("ecl-isvr", averaging=averaging))
    ]
    for fleet in runs:
        fleet.run(150)
    torch.testing.assert_close(runs[0].models(), runs[1].models(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("averaging", [1.0, 0.5])
def test_agrees_with_the_published_form_in_lock_step(problem: Quadratics, averaging: float) -> None:
    """Duals z with signs and dense masks: z_ji <- z_ji + theta C(y_ij - z_ji). Only the seeds are this project's."""
    settings = options(averaging=averaging)
    masks = packing_of(settings, DIM).selection
    edges = [(i, j) for i in SITES for j in GRAPH.neighbours(i)]
    sign = {(i, j): 1.0 if i < j else -1.0 for i, j in edges}
    eta = {(i, j): 1 / (0.1 * max(GRAPH.degree(i), GRAPH.degree(j)) * (6 / 0.25 - 1)) for i, j in edges}
    w = dict.fromkeys(SITES, START)
    z = {edge: sign[edge] * START for edge in edges}
    for tick in range(1, 100):
        for i in SITES:
            near = GRAPH.neighbours(i)
            pull = sum(eta[i, j] * sign[i, j] * z[i, j] for j in near)
            w[i] = (w[i] / 0.1 - problem.gradients[i](w[i]) + pull) / (1 / 0.1 + sum(eta[i, j] for j in near))
        if tick % 6 == 0:
            y = {(i, j): z[i, j] - 2 * sign[i, j] * w[i] for i, j in edges}
            for i, j in edges:
                mask = torch.zeros(DIM, dtype=torch.float64)
                masks.add(
                    mask, torch.ones(masks.count, dtype=mask.dtype), masks.choose(message_seed(j, tick // 6), None)
                )
                z[j, i] = z[j, i] + averaging * mask * (y[i, j] - z[j, i])
    fleet = fleet_of(problem, settings, Pace(lock_step=True), Link())
    fleet.run(99)
    torch.testing.assert_close(fleet.models(), torch.stack([w[i] for i in SITES]), rtol=1e-12, atol=1e-12)


EXACT = [options(name, scale=10.0) for name in ("random-k", "top-k", "low-rank")]
exact = pytest.mark.parametrize("settings", EXACT, ids=lambda settings: settings.compression)


@exact
def test_exact_on_a_bad_network(problem: Quadratics, settings: AlgorithmOptions) -> None:
    assert fleet_of(problem, settings).run_until(problem.optimum(), 1e-9, 20_000) <= 1e-9


@pytest.mark.parametrize(("number_format", "floor"), [("float16", 2e-3), ("int8", 5e-2)])
def test_lossy_formats_blur_the_optimum_by_about_their_rounding(
    problem: Quadratics, number_format: str, floor: float
) -> None:
    fleet = fleet_of(problem, options("none", number_format=number_format, averaging=0.5))
    fleet.run(4000)
    assert 1e-7 < float((fleet.models() - problem.optimum()).abs().max()) < floor


@exact
def test_an_outage_leaves_no_trace(problem: Quadratics, settings: AlgorithmOptions) -> None:
    fleet = fleet_of(problem, settings)
    fleet.run(200)
    fleet.asleep.add("c")
    fleet.run(600)
    fleet.asleep.remove("c")
    assert fleet.run_until(problem.optimum(), 1e-9, 20_000) <= 1e-9


@pytest.mark.parametrize("number_format", ["full", "float16", "int8"])
@pytest.mark.parametrize("compression", ["none", "random-k", "top-k", "low-rank"])
def test_restarts_from_checkpoints_change_not_one_bit(
    problem: Quadratics, compression: str, number_format: str
) -> None:
    settings = options(compression, number_format=number_format)
    steady, shaken = fleet_of(problem, settings), fleet_of(problem, settings)
    for site in SITES:
        for fleet in (steady, shaken):
            fleet.run(15)
        shaken.restart(site)
    assert torch.equal(steady.models(), shaken.models())


def test_terms_follow_the_part_that_is_told() -> None:
    ends = EdgeEnd(LocalStep(0.1, 5), 3), EdgeEnd(LocalStep(0.2, 3), 1)
    assert edge_terms(options(keep=0.5, averaging=0.5), *ends) == EdgeTerms(1 / (0.2 * (3 / 0.5 - 1) * 3), 0.5)
    assert edge_terms(options("none"), *ends) == edge_terms(AlgorithmOptions("ecl-isvr", averaging=1.0), *ends)


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1, float("nan")])
def test_the_part_to_keep_is_within_its_range(keep: float) -> None:
    with pytest.raises(JobError, match=r"keep is .*; it must be above 0 and at most 1"):
        options(keep=keep)


def test_seeds_differ_by_receiver_and_message() -> None:
    seeds = {message_seed(receiver, number) for receiver in ("N1", "N2", "N11", "1") for number in range(100)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_twentieth_of_the_bytes() -> None:
    """Ten times fewer numbers in half the width, but for the seed."""
    whole, packed = (
        build_algorithm(settings, torch.zeros(50_000), STEP).layout()
        for settings in (AlgorithmOptions("ecl-isvr"), options(keep=0.1, number_format="float16"))
    )
    ratio = (default_max_bytes(whole) - default_max_bytes({})) / (default_max_bytes(packed) - default_max_bytes({}))
    assert ratio == pytest.approx(20, rel=1e-3)


def test_a_wrong_message_changes_nothing() -> None:
    algorithm = build_algorithm(options("top-k", keep=0.5), torch.zeros(4), STEP)
    algorithm.add_neighbour("a", EdgeTerms(penalty=1.0))
    before = algorithm.state()
    wrong: Mapping[str, Tensor] = {"values": torch.ones(2), "indices": torch.tensor([3, 4], dtype=torch.int32)}
    with pytest.raises(UpdateRefused, match=r"indices must ascend within \[0, 4\)"):
        algorithm.absorb("a", wrong)
    assert all(torch.equal(tensor, before[name]) for name, tensor in algorithm.state().items())
    algorithm.outgoing("a")  # nothing was absorbed, so no step is needed first
