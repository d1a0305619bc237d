"""How long news needs to cross a graph, against closed forms."""

from __future__ import annotations

import math

import pytest

from concord.consensus.graph import build_topology
from concord.consensus.mixing_time import mixing_time, slowest_mixing


def edges(kind: str, count: int) -> frozenset[tuple[str, str]]:
    return build_topology(kind, tuple(f"N{number}" for number in range(count))).edges


@pytest.mark.parametrize("count", [3, 8, 16, 50])
def test_on_rings_and_chains_it_grows_with_the_square_of_their_length(count: int) -> None:
    """All weights are 1/3, and the slowest disagreement is a cosine along the sites: once, or half, around."""
    assert mixing_time(edges("ring", count)) == pytest.approx(1.5 / (1 - math.cos(2 * math.pi / count)))
    assert mixing_time(edges("chain", count)) == pytest.approx(1.5 / (1 - math.cos(math.pi / count)))


def test_it_is_one_round_where_all_are_neighbours_and_as_many_as_sites_on_a_star() -> None:
    assert mixing_time(edges("complete", 6)) == pytest.approx(1.0)
    assert mixing_time(edges("star", 8)) == pytest.approx(8.0)
    assert mixing_time(frozenset()) == 1.0


def test_parts_that_hear_nothing_of_each_other_count_by_themselves() -> None:
    apart = edges("chain", 5) | {("M1", "M2")}
    assert mixing_time(apart) == pytest.approx(mixing_time(edges("chain", 5)))


def test_a_ring_is_two_fifths_as_slow_as_the_chain_that_it_is_without_a_site() -> None:
    assert slowest_mixing(edges("ring", 9)) == pytest.approx(mixing_time(edges("chain", 8)) * 0.4)
    assert slowest_mixing(edges("chain", 8)) == pytest.approx(mixing_time(edges("chain", 8)))
    assert slowest_mixing(edges("star", 8)) == pytest.approx(8.0)
    assert slowest_mixing(edges("complete", 2)) == slowest_mixing(frozenset()) == 1.0


def test_of_very_many_sites_none_has_to_be_tried() -> None:
    assert slowest_mixing(edges("ring", 129)) > mixing_time(edges("chain", 128)) * 0.4
    assert slowest_mixing(edges("ring", 128)) == pytest.approx(mixing_time(edges("chain", 127)) * 0.4)
