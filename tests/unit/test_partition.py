"""Splits: every sample once, nobody empty, the promised bias, and errors that say what would be possible."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from concord.errors import SplitError
from concord.learning.partition import SPLIT_KINDS, SplitOptions, class_counts, split
from concord.learning.units import kinds_of, units_of


def names(count: int) -> list[str]:
    return [f"N{number}" for number in range(1, count + 1)]


def balanced(classes: int = 10, each: int = 60) -> Tensor:
    return torch.arange(classes).repeat(each)


def assert_deals_out(shares: dict[str, Tensor], samples: int, sites: list[str]) -> None:
    assert list(shares) == sites
    assert sorted(torch.cat(list(shares.values())).tolist()) == list(range(samples))
    assert all(len(share) for share in shares.values())


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), min_size=8, max_size=120),
    sites=st.integers(1, 8),
    kind=st.sampled_from(["dirichlet", "iid", "quantity"]),
    alpha=st.sampled_from([0.001, 0.1, 1.0, 100.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_every_sample_goes_to_one_site_and_every_site_gets_one(
    labels: list[int], sites: int, kind: str, alpha: float, seed: int
) -> None:
    options = SplitOptions(kind=kind, alpha=alpha, seed=seed)
    assert_deals_out(split(torch.tensor(labels), names(sites), options), len(labels), names(sites))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), classes=st.integers(1, 10), sites=st.integers(1, 12), seed=st.integers(0, 1000))
def test_classes_per_site_holds_its_bounds_and_covers_every_class(
    data: st.DataObject, classes: int, sites: int, seed: int
) -> None:
    high = data.draw(st.integers(-(-classes // sites), classes))
    low = data.draw(st.integers(1, high))
    targets = balanced(classes, each=sites)
    options = SplitOptions(classes=(low, high), seed=seed)
    shares = split(targets, names(sites), options)
    assert_deals_out(shares, len(targets), names(sites))
    rows = class_counts(targets, shares)
    assert all(low <= len(row.held) <= high for row in rows)
    holders = torch.tensor([[count > 0 for count in row.counts] for row in rows]).sum(dim=0)
    assert int(holders.min()) >= 1
    assert int(holders.max() - holders.min()) <= 1


def test_a_class_is_shared_out_evenly_among_its_holders() -> None:
    targets = balanced()
    rows = class_counts(targets, split(targets, names(8), SplitOptions()))
    for label in range(10):
        shares = [row.counts[label] for row in rows if row.counts[label]]
        assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("kind", SPLIT_KINDS)
def test_the_seed_alone_decides(kind: str) -> None:
    targets = balanced()
    first, same, other = (split(targets, names(8), SplitOptions(kind=kind, seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[site], same[site]) for site in names(8))
    assert any(not torch.equal(first[site], other[site]) for site in names(8))


@pytest.mark.parametrize("kind", SPLIT_KINDS)
def test_torch_s_own_generator_is_neither_read_nor_moved(kind: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    split(balanced(), names(4), SplitOptions(kind=kind, classes=(3, 4), width=4, stride=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_small_alpha_is_more_biased_than_a_large_one() -> None:
    targets = balanced()

    def most(alpha: float) -> float:
        rows = class_counts(targets, split(targets, names(6), SplitOptions(kind="dirichlet", alpha=alpha)))
        return sum(max(row.counts) / row.total for row in rows) / len(rows)

    assert most(0.05) > 2 * most(100.0)
    assert most(100.0) < 0.2


def test_quantity_skews_sizes_but_not_labels() -> None:
    targets = balanced(each=200)
    options = SplitOptions(kind="quantity", alpha=0.5, minimum=50)
    rows = class_counts(targets, split(targets, names(6), options))
    assert min(row.total for row in rows) >= 50
    assert max(row.total for row in rows) > 3 * min(row.total for row in rows)
    for row in rows:
        assert max(row.counts) - min(row.counts) <= 3


@pytest.mark.parametrize("kind", SPLIT_KINDS)
def test_shards_are_dealt_out_as_to_so_many_sites_whoever_holds_them(kind: str) -> None:
    options = SplitOptions(kind=kind, shards=8, shard={"late": 2})
    alone = split(balanced(), names(8), SplitOptions(kind=kind))
    shares = split(balanced(), [*names(9), "late"], options)
    assert all(torch.equal(shares[site], alone[site]) for site in names(8))
    assert torch.equal(shares["N9"], alone["N1"])
    assert torch.equal(shares["late"], alone["N3"])


def test_windows_lie_in_one_circle_and_their_holders_get_about_the_same_of_a_class() -> None:
    targets, sites = balanced(10, each=700), names(8)
    options = SplitOptions(kind="windows", width=8, stride=4, seed=3)
    shares = split(targets, sites, options)
    assert_deals_out(shares, len(targets), sites)
    rows = class_counts(targets, shares)
    held = [set(row.held) for row in rows]
    assert [len(classes) for classes in held] == [8] * 8
    # A stride of 4 round a circle of 10 comes back after five sites, and neighbours have four or more in common.
    assert held[:3] == held[5:]
    assert all(len(held[one] & held[one + 1]) >= 4 for one in range(7))
    for label in range(10):
        parts = [row.counts[label] for row in rows if row.counts[label]]
        assert max(parts) <= min(parts) / 0.8 + 1


def test_iid_gives_all_the_same_number_and_needs_no_classes() -> None:
    shares = split(torch.rand(103, 4), names(10), SplitOptions(kind="iid"))
    assert sorted(len(share) for share in shares.values()) == [10] * 7 + [11] * 3


def test_class_counts_have_a_column_for_every_class() -> None:
    rows = class_counts(torch.tensor([0, 2, 2]), {"a": torch.tensor([0, 1]), "b": torch.tensor([2])}, classes=4)
    assert [(row.site, row.counts, row.total, row.held) for row in rows] == [
        ("a", (1, 0, 1, 0), 2, (0, 2)),
        ("b", (0, 0, 1, 0), 1, (2,)),
    ]


@pytest.mark.parametrize(
    ("sites", "options", "message"),
    [
        (names(3), SplitOptions(classes=(1, 2)), "3 sites of at most 2 classes .* must be at least 4"),
        (names(3), SplitOptions(classes=(3, 2)), r"\[3, 2\] must be an ascending pair within 1..10"),
        (names(3), SplitOptions(classes=(0, 4)), "ascending pair within 1..10"),
        (names(3), SplitOptions(classes=(2, 11)), "ascending pair within 1..10"),
        (names(300), SplitOptions(classes=(10, 10)), "300 sites should share a class of 60 samples"),
        (names(3), SplitOptions(kind="dirichlet", alpha=0.0), r"split.alpha: 0.0 must be within 0.001"),
        (names(3), SplitOptions(kind="dirichlet", alpha=float("nan")), "split.alpha"),
        (names(3), SplitOptions(kind="quantity", minimum=201), "split.minimum: 201 must be within 1..200"),
        (names(3), SplitOptions(kind="quantity", minimum=0), "split.minimum: 0"),
        (names(3), SplitOptions(kind="windows", width=11), "split.width: 11 must be within 1..10"),
        (names(3), SplitOptions(kind="windows"), "windows of 2, 2 apart, leave classes out at 3 sites"),
        (names(601), SplitOptions(kind="iid"), "600 samples cannot give each of 601 sites one"),
        (["a", "a"], SplitOptions(), "each name once"),
        (["a"], SplitOptions(shards=8, shard={"a": 8}), "sites.a.shard: should be from 0 to 7, found 8"),
        ([], SplitOptions(), "at least one"),
        (names(3), SplitOptions(kind="dirichelet"), "did you mean 'dirichlet'"),
    ],
)
def test_what_cannot_be_dealt_out_says_what_could(sites: list[str], options: SplitOptions, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        split(balanced(), sites, options)


@pytest.mark.parametrize("kind", ["classes-per-site", "dirichlet", "quantity", "windows"])
def test_a_split_by_class_needs_classes(kind: str) -> None:
    with pytest.raises(SplitError, match=r"needs one integer class per sample.*float32 of shape \(9, 14\)"):
        split(torch.full((9, 14), 0.5), names(2), SplitOptions(kind=kind))


def test_a_sample_of_several_labels_is_of_the_kind_of_the_rarest() -> None:
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]])
    assert kinds_of(labels, "this").tolist() == [1, 0, 2, 3, 2]
    assert kinds_of(labels.float(), "this").tolist() == [1, 0, 2, 3, 2]
    rows = class_counts(labels, {"a": torch.tensor([0, 3]), "b": torch.tensor([1, 2, 4])})
    assert [(row.counts, row.total, row.unlabelled, row.held) for row in rows] == [
        ((1, 1, 0), 2, 1, (0, 1)),
        ((2, 0, 2), 3, 0, (0, 2)),
    ]


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    sites=st.integers(1, 6),
    kind=st.sampled_from(["dirichlet", "iid", "quantity"]),
    minimum=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_groups_stay_together_and_every_sample_goes_to_one_site(
    data: st.DataObject, sites: int, kind: str, minimum: int, seed: int
) -> None:
    # At least two groups for every site.
    owners = list(range(12)) + data.draw(st.lists(st.integers(0, 15), max_size=40))
    row = st.lists(st.integers(0, 1), min_size=3, max_size=3)
    labels = torch.tensor(data.draw(st.lists(row, min_size=len(owners), max_size=len(owners))))
    groups = 7 * torch.tensor(owners)
    shares = split(labels, names(sites), SplitOptions(kind=kind, minimum=minimum, alpha=0.3, seed=seed), groups)
    assert_deals_out(shares, len(owners), names(sites))
    held = [set(groups[indices].tolist()) for indices in shares.values()]
    assert sum(map(len, held)) == len(set(owners))
    assert kind == "iid" or min(map(len, held)) >= minimum


def test_a_group_is_of_the_kind_of_its_rarest_sample() -> None:
    kinds = torch.tensor([0, 0, 1, 0, 2, 2])
    units = units_of(kinds, torch.tensor([5, 3, 3, 5, 4, 5]))
    assert units.kinds.tolist() == [1, 2, 2]
    assert units.members == ((1, 2), (4,), (0, 3, 5))


def test_more_sites_than_groups_are_refused() -> None:
    with pytest.raises(SplitError, match="2 groups of samples cannot give each of 3 sites one"):
        split(balanced(), names(3), SplitOptions(kind="iid"), torch.arange(600) % 2)
    with pytest.raises(SplitError, match=r"groups \(2,\) do not match 600 samples"):
        split(balanced(), names(3), SplitOptions(), torch.arange(2))
    with pytest.raises(SplitError, match=r"split\.minimum: 201 must be within 1\.\.200 for 600"):
        split(balanced(), names(3), SplitOptions(kind="dirichlet", minimum=201))


def test_a_dirichlet_draw_gives_every_site_the_minimum() -> None:
    least = []
    for minimum in (1, 20):
        shares = split(balanced(3), names(6), SplitOptions(kind="dirichlet", alpha=0.01, minimum=minimum))
        assert_deals_out(shares, 180, names(6))
        least.append(min(map(len, shares.values())))
    assert least == [1, 20]
