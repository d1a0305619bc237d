"""What an edge believes: training of every kind, and no nonsense, however it is brought."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from concord.consensus.algorithm import EdgeEnd, LocalStep
from concord.consensus.registry import AlgorithmOptions, algorithm_names, build_algorithm, edge_terms
from concord.errors import RefusalReason, UpdateRefused
from concord.wire.sanity import CEILING, DOUBLING, FACTOR, FLOOR, Scales, magnitudes

PART = "message"
positive = st.floats(1e-30, 1e30)


def believes(scales: Scales, size: float, now: float, own: float = 0.0) -> bool:
    try:
        scales.check({PART: size}, {PART: own}, now)
    except UpdateRefused:
        return False
    return True


def test_a_refusal_says_what_was_too_much() -> None:
    with pytest.raises(UpdateRefused, match=r"part 'message' reaches 1e\+09; at most 1e\+04 is believed") as refused:
        Scales().check({PART: 1e9}, {}, 0.0)
    assert refused.value.reason is RefusalReason.ABSURD


@given(size=st.floats(0.0, FACTOR * FLOOR))
def test_a_first_update_of_any_usual_size_is_believed(size: float) -> None:
    assert believes(Scales(), size, 0.0)


@given(own=st.floats(1.0, 1e10), ratio=st.floats(0.0, 0.99 * FACTOR))
def test_what_is_like_our_own_is_believed_at_once_whatever_its_size(own: float, ratio: float) -> None:
    assert believes(Scales(), min(own * ratio, CEILING), 0.0, own)


@given(
    start=st.floats(0.0, 100.0),
    moves=st.lists(st.tuples(st.floats(0.0, 1e5), st.floats(0.01, 50.0)), max_size=30),
)
def test_a_model_that_moves_by_factors_is_believed_after_any_outage(
    start: float, moves: list[tuple[float, float]]
) -> None:
    scales, now = Scales(), 0.0
    for silence, factor in moves:
        now += silence
        assert believes(scales, start * factor, now)


@given(history=st.lists(st.floats(0.0, 100.0), max_size=20), nonsense=st.floats(1e7, 1e300))
def test_nonsense_is_not_believed_after_any_history(history: list[float], nonsense: float) -> None:
    scales = Scales()
    for now, size in enumerate(history):
        believes(scales, size, float(now))
    assert not believes(scales, nonsense, 1e6)


@given(overshoot=st.floats(2.0, 1e6), interval=st.floats(0.05, 59.0))
def test_what_comes_steadily_is_believed_in_the_end_and_not_before(overshoot: float, interval: float) -> None:
    scales, now = Scales(), 0.0
    least = math.log2(overshoot) * DOUBLING
    size = FACTOR * FLOOR * overshoot
    step = max(interval, least / 500)
    while not believes(scales, size, now):
        now += step
        assert now < least + 3 * step + 1.0
    assert now >= least - 1e-6 * least - 1e-3 or math.isclose(now, least, rel_tol=1e-3)


@given(
    sizes=st.lists(st.floats(0.0, 1e300), min_size=1, max_size=50),
    gaps=st.lists(st.floats(0.0, 1e9), min_size=50, max_size=50),
)
def test_a_liar_gains_no_more_than_a_doubling_with_each_update(sizes: list[float], gaps: list[float]) -> None:
    scales, now, bound = Scales(), 0.0, FACTOR * FLOOR
    for size, gap in zip(sizes, gaps, strict=False):
        now += gap
        believed = believes(scales, size, now)
        assert not (believed and size > bound * (1 + 1e-9))
        bound *= 2.0 ** min(1.0, gap / DOUBLING) if now else 1.0
        bound *= 2.0


def test_quick_repetition_gains_nothing() -> None:
    scales = Scales()
    assert not any(believes(scales, 1e6, number * 1e-3) for number in range(5000))


def test_a_bit_that_flips_is_caught_and_the_next_update_is_believed() -> None:
    scales = Scales()
    assert believes(scales, 0.7, 0.0)
    assert not believes(scales, 0.7 * 2.0**64, 0.05)
    assert believes(scales, 0.7, 0.1)


def test_beyond_what_can_be_squared_nothing_is_believed() -> None:
    assert not believes(Scales(), 1.1 * CEILING, 0.0, own=CEILING)
    assert not believes(Scales(factor=math.inf), math.inf, 0.0)


def test_magnitudes_are_those_of_floating_point_parts() -> None:
    parts = {
        "values": torch.tensor([1.0, -3.0]),
        "half": torch.tensor([2.0], dtype=torch.float16),
        "none": torch.empty(0),
        "key": torch.tensor([1 << 62]),
        "odd": torch.tensor([1.0, math.nan]),
    }
    assert magnitudes(parts) == {"values": 3.0, "half": 2.0, "none": 0.0, "odd": math.inf}


@pytest.mark.parametrize("compression", ["random-k", "top-k", "low-rank"])
@pytest.mark.parametrize("name", algorithm_names())
def test_every_algorithm_is_believed_from_its_first_update_on(name: str, compression: str) -> None:
    """Two sites whose losses pull apart, with steps as large as stay stable; one begins, the other has ended."""
    options = AlgorithmOptions(name=name, compression=compression, keep=0.25)
    step = LocalStep(0.3, 4)
    end = EdgeEnd(step, 1)
    sites = {}
    for site, other, centre in (("a", "b", 50.0), ("b", "a", -50.0)):
        algorithm = build_algorithm(options, torch.zeros(64), step)
        algorithm.add_neighbour(other, edge_terms(options, end, end))
        sites[site] = (algorithm, other, centre)
    scales = {site: Scales() for site in sites}
    now, own = 0.0, {site: dict[str, float]() for site in sites}
    for round_ in range(40):
        outgoing = {}
        for site, (algorithm, other, centre) in sites.items():
            for _ in range(step.steps):
                algorithm.local_step(algorithm.primal - centre)
            if algorithm.parts:
                outgoing[other] = algorithm.outgoing(other)
                own[site] = magnitudes(outgoing[other])
        now += 3600.0 if round_ == 20 else 0.05
        for site, message in outgoing.items():
            scales[site].check(magnitudes(message), own[site] if round_ else {}, now)
            sites[site][0].absorb(sites[site][1], message)
