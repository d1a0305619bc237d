"""What travels in few bytes: bounds of every rounding, what a key selects, and what hostile parts can do: nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from concord.consensus.algorithm import PartLayout, payload_bytes
from concord.consensus.compression import CHUNK, Float16, Full, Int8, NumberFormat, Packing, SenderMemory, packing_of
from concord.consensus.options import AlgorithmOptions
from concord.consensus.selection import Everything, LowRank, RandomK, Selection, TopK, _random
from concord.errors import JobError, RefusalReason, UpdateRefused

FORMATS: list[NumberFormat] = [Full(), Float16(), Int8()]
SELECTIONS = [Everything, RandomK, TopK, LowRank]

sizes = st.integers(1, 700)
keeps = st.floats(0.01, 1)
seeds = st.integers(0, 2**63 - 1)
magnitudes = st.floats(-6, 4).map(lambda exponent: 10.0**exponent)


def build(kind: type[Selection], size: int, keep: float) -> Selection:
    return Everything(size) if kind is Everything else kind(size, keep)  # type: ignore[arg-type,call-arg]


def vector(size: int, seed: int, magnitude: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed % 2**32)
    return torch.randn(size, generator=generator, dtype=dtype) * magnitude


def laid_out(parts: dict[str, Tensor]) -> dict[str, PartLayout]:
    return {name: PartLayout.of(tensor) for name, tensor in parts.items()}


# Formats


@given(size=sizes, seed=seeds, magnitude=magnitudes)
@settings(max_examples=60, deadline=None)
def test_roundings_stay_within_their_bounds(size: int, seed: int, magnitude: float) -> None:
    numbers = vector(size, seed, magnitude)
    halves = (Float16().decode(Float16().encode(numbers), numbers.dtype) - numbers).abs()
    inside = numbers.abs() <= 65504
    assert (halves <= numbers.abs() * 2**-11 + 2**-25)[inside].all()
    bytes_off = (Int8().decode(Int8().encode(numbers), numbers.dtype) - numbers).abs()
    for start in range(0, size, CHUNK):
        chunk = slice(start, start + CHUNK)
        assert float(bytes_off[chunk].max()) <= float(numbers[chunk].abs().max()) / 254 * (1 + 1e-4)
    assert torch.equal(Full().decode(Full().encode(numbers), numbers.dtype), numbers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: type(form).__name__)
@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_parts_are_of_the_layout(form: NumberFormat, size: int, dtype: torch.dtype) -> None:
    numbers = vector(size, 1, dtype=dtype)
    parts = form.encode(numbers)
    assert laid_out(parts) == form.layout(size, dtype)
    assert form.decode(parts, dtype).dtype == dtype
    assert all(part.data_ptr() != numbers.data_ptr() for part in parts.values())


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: type(form).__name__)
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-300, 1e-38, 1e-30, -3e4])
def test_extreme_numbers_stay_finite(form: NumberFormat, value: float) -> None:
    numbers = torch.full((5,), value, dtype=torch.float64)
    found = form.decode(form.encode(numbers), numbers.dtype)
    assert torch.isfinite(found).all()
    assert float((found - numbers).abs().max()) <= abs(value) / 200 + 2**-25


def test_float16_holds_what_is_too_large_for_it() -> None:
    found = Float16().decode(Float16().encode(torch.tensor([1e6, -1e6])), torch.float32)
    assert found.tolist() == [65504.0, -65504.0]


# Selections


def test_the_random_numbers_are_splitmix64() -> None:
    """The first outputs for the seed 1234567, as published with the generator's reference code."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert _random(1234567, 4, None).tolist() == [number >> 32 for number in published]


@given(size=sizes, keep=keeps, seed=seeds)
@settings(max_examples=80, deadline=None)
def test_random_k_is_k_different_coordinates(size: int, keep: float, seed: int) -> None:
    selection = RandomK(size, keep)
    indices = selection.indices(seed)
    assert indices.numel() == selection.count == min(size, math.ceil(keep * size))
    assert int(indices[0]) >= 0
    assert int(indices[-1]) < size
    assert (indices.diff() > 0).all()


def test_random_k_chooses_every_coordinate_about_as_often() -> None:
    selection = RandomK(50, 0.3)
    counts = torch.zeros(50)
    for seed in range(4000):
        counts[selection.indices(seed)] += 1
    # Runs are of 3 or 4 coordinates, so a coordinate is due once in 3 or 4 draws.
    assert float((counts / 4000).min()) > 1 / 4 - 0.04
    assert float((counts / 4000).max()) < 1 / 3 + 0.04


@pytest.mark.parametrize("kind", SELECTIONS)
@given(size=sizes, keep=keeps, seed=seeds)
@settings(max_examples=40, deadline=None)
def test_a_selection_is_an_orthogonal_projection(kind: type[Selection], size: int, keep: float, seed: int) -> None:
    selection = build(kind, size, keep)
    x, y = vector(size, seed), vector(size, seed + 1)
    key = selection.choose(seed, x)
    selection.check(key)
    assert laid_out(key) == selection.layout()
    numbers = selection.project(x, key)
    assert numbers.shape == (selection.count,)
    lifted = torch.zeros_like(x)
    selection.add(lifted, numbers, key)
    twice = torch.zeros_like(x)
    selection.add(twice, selection.project(lifted, key), key)
    other = torch.zeros_like(y)
    selection.add(other, selection.project(y, key), key)
    if not (kind is LowRank and selection.count * math.ceil(1 / keep) != size):  # padded: a contraction, see below
        torch.testing.assert_close(twice, lifted)
    torch.testing.assert_close(lifted @ y, x @ other)  # symmetric
    assert float(lifted.norm()) <= float(x.norm()) * (1 + 1e-12)


def test_low_rank_is_the_product_with_orthonormal_columns() -> None:
    """Against the dense matrices: M (a, b), Q (b, r), and M Q Q'."""
    rows, run, rank = 6, 4, 2
    selection = LowRank(rows * run * rank, 1 / run)
    assert (selection.rank, selection.count) == (rank, rows * rank)
    key = selection.choose(77, None)
    x = vector(selection.size, 3)
    columns = torch.stack([selection.project(row, key) for row in torch.eye(selection.size, dtype=x.dtype)])
    basis = columns[: run * rank, :rank]
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank, dtype=x.dtype))
    torch.testing.assert_close(selection.project(x, key).view(rows, rank), x.view(rows, run * rank) @ basis)
    lifted = torch.zeros_like(x)
    selection.add(lifted, selection.project(x, key), key)
    torch.testing.assert_close(lifted.view(rows, -1), x.view(rows, -1) @ basis @ basis.T)


def test_top_k_takes_the_greatest_changes_and_some_others() -> None:
    selection = TopK(1000, 0.04)
    change = torch.zeros(1000)
    greatest = torch.arange(5, 900, 30)  # 30 places of 40; a quarter goes to random ones
    change[greatest] = -1.0
    seen = set()
    for seed in range(200):
        indices = set(selection.choose(seed, change)["indices"].tolist())
        assert indices.issuperset(greatest.tolist())
        seen |= indices
    assert len(seen) > 800


@pytest.mark.parametrize("wrong", [[-1, 0], [0, 10], [3, 3], [4, 2], [2**31 - 1, 1], [-(2**31), 5]])
def test_indices_that_cannot_be_are_refused_before_any_change(wrong: list[int]) -> None:
    packing = Packing(TopK(10, 0.2), Full())
    target = torch.zeros(10)
    parts = {"values": torch.ones(2), "indices": torch.tensor(wrong, dtype=torch.int32)}
    with pytest.raises(UpdateRefused) as refused:
        packing.unpack_onto(target, parts, 1.0)
    assert refused.value.reason is RefusalReason.MALFORMED
    assert torch.equal(target, torch.zeros(10))


def test_scales_that_overflow_are_refused_before_any_change() -> None:
    packing = Packing(Everything(3), Int8())
    target = torch.zeros(3)
    parts = {"values": torch.full((3,), 127, dtype=torch.int8), "scales": torch.tensor([3e38])}
    with pytest.raises(UpdateRefused) as refused:
        packing.unpack_onto(target, parts, 1.0)
    assert refused.value.reason is RefusalReason.NOT_FINITE
    assert torch.equal(target, torch.zeros(3))


@pytest.mark.parametrize("name", ["random-k", "low-rank"])
@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_any_seed_is_a_key(name: str, seed: int) -> None:
    packing = packing_of(AlgorithmOptions("c-ecl", compression=name), 100)
    key = next(iter(packing.selection.layout()))
    target = torch.zeros(100)
    packing.unpack_onto(target, {"values": torch.ones(packing.selection.count), key: torch.tensor([seed])}, 1.0)
    assert torch.isfinite(target).all()


# Packing


@pytest.mark.parametrize("kind", SELECTIONS)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: type(form).__name__)
def test_a_receiver_follows_whatever_is_lost(kind: type[Selection], form: NumberFormat) -> None:
    """Four in five messages are lost, and still what the receiver holds becomes what the sender has."""
    packing = Packing(build(kind, 300, 0.2), form)
    x, held = vector(300, 1), torch.zeros(300, dtype=torch.float64)
    memory = packing.remember(held)
    for number in range(1500):
        parts = packing.pack(x, number * 7919, memory)
        assert laid_out(parts) == packing.layout(x.dtype)
        if number % 5 == 2:
            packing.unpack_onto(held, parts, 1.0)
    off = {Full: 1e-9, Float16: 5e-3, Int8: 0.15}[type(form)]
    assert float((held - x).abs().max()) <= off


@pytest.mark.parametrize("kind", [Everything, RandomK, TopK, LowRank])
def test_error_feedback_lets_roundings_cancel(kind: type[Selection]) -> None:
    """The mean of what is received over many messages is nearer the truth than any rounding by itself."""
    packing = Packing(build(kind, 256, 0.5), Int8())
    x = vector(256, 5)
    errors = {}
    for fed_back in (True, False):
        memory = packing.remember(torch.zeros_like(x))
        if not fed_back:
            memory = SenderMemory(sent=memory.sent)
        held, total = torch.zeros_like(x), torch.zeros_like(x)
        for number in range(600):
            packing.unpack_onto(held, packing.pack(x, number * 104729, memory), 1.0)
            total += held if number >= 200 else 0
        errors[fed_back] = float((total / 400 - x).norm())
    assert errors[True] < errors[False] / 2


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"compression": "none", "number_format": "full"}, 4000),
        ({"compression": "none", "number_format": "float16"}, 2000),
        ({"compression": "none", "number_format": "int8"}, 1000 + 4 * 4),
        ({"compression": "random-k"}, 400 + 8),
        ({"compression": "top-k"}, 400 + 400),
        ({"compression": "random-k", "number_format": "float16"}, 200 + 8),
        ({"compression": "random-k", "number_format": "int8", "keep": 0.2}, 200 + 4 + 8),
        ({"compression": "low-rank"}, 4 * 25 * 4 + 8),
    ],
    ids=str,
)
def test_bytes_of_a_message_for_a_thousand_parameters(options: dict[str, str], wanted: int) -> None:
    packing = packing_of(AlgorithmOptions("c-ecl", **options), 1000)  # type: ignore[arg-type]
    assert payload_bytes(packing.layout(torch.float32)) == wanted


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(JobError, match="unknown compression 'random'; did you mean 'random-k'"):
        packing_of(AlgorithmOptions(compression="random"), 3)
    with pytest.raises(JobError, match="unknown number format 'int4'; did you mean 'int8'"):
        packing_of(AlgorithmOptions(number_format="int4"), 3)
