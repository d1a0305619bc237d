"""Topologies: the shape each name stands for, and what is said about those that cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concord.consensus.graph import EdgeList, Topology, build_topology, topology_kinds
from concord.errors import TopologyError

EIGHT = tuple(f"N{number}" for number in range(1, 9))
SHAPES = [
    ("ring", 8, {2}),
    ("double-ring", 16, {4}),
    ("star", 7, {1, 7}),
    ("chain", 7, {1, 2}),
    ("grid", 10, {2, 3}),
    ("complete", 28, {7}),
    ("exponential", 20, {5}),
]


@pytest.mark.parametrize(("kind", "edges", "degrees"), SHAPES)
def test_each_name_gives_its_shape(kind: str, edges: int, degrees: set[int]) -> None:
    topology = build_topology(kind, EIGHT)
    assert topology.sites == EIGHT
    assert len(topology.edges) == edges
    assert {topology.degree(site) for site in EIGHT} == degrees


def test_multiplex_ring_is_another_name_for_the_double_ring() -> None:
    assert build_topology("multiplex-ring", EIGHT) == build_topology("double-ring", EIGHT)
    assert build_topology("double-ring", EIGHT).neighbours("N1") == ("N2", "N3", "N7", "N8")


def test_exponential_hops_are_one_two_four() -> None:
    assert build_topology("exponential", EIGHT).neighbours("N1") == ("N2", "N3", "N5", "N7", "N8")


def test_first_site_is_the_hub_of_a_star() -> None:
    assert build_topology("star", EIGHT).degree("N1") == 7


def test_grid_fills_rows_in_order() -> None:
    assert build_topology("grid", EIGHT).neighbours("N2") == ("N1", "N3", "N6")
    assert build_topology("grid", EIGHT, columns=2).neighbours("N3") == ("N1", "N4", "N5")


@pytest.mark.parametrize("kind", [kind for kind, *_ in SHAPES])
def test_one_and_two_sites(kind: str) -> None:
    assert build_topology(kind, ["alone"]).edges == frozenset()
    assert build_topology(kind, ["west", "east"]).edges == {("east", "west")}


@given(count=st.integers(3, 12), degree=st.integers(2, 11), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_random_regular_is_regular_and_alike_every_time(count: int, degree: int, seed: int) -> None:
    sites = [f"N{number}" for number in range(count)]
    if degree >= count or degree * count % 2:
        with pytest.raises(TopologyError, match=f"degree {degree} is impossible"):
            build_topology("random-regular", sites, degree=degree, seed=seed)
        return
    topology = build_topology("random-regular", sites, degree=degree, seed=seed)
    assert {topology.degree(site) for site in sites} == {degree}
    assert topology == build_topology("random-regular", sites, degree=degree, seed=seed)


def test_random_regular_depends_on_its_seed() -> None:
    drawn = {build_topology("random-regular", EIGHT, degree=3, seed=seed).edges for seed in range(5)}
    assert len(drawn) > 1


@given(count=st.integers(1, 12), kind=st.sampled_from(["ring", "double-ring", "star", "complete", "exponential"]))
@settings(max_examples=40, deadline=None)
def test_neighbours_know_each_other(count: int, kind: str) -> None:
    sites = [f"N{number}" for number in range(count)]
    topology = build_topology(kind, sites)
    for site in sites:
        assert list(topology.neighbours(site)) == sorted(set(topology.neighbours(site)) - {site})
        assert all(site in topology.neighbours(other) for other in topology.neighbours(site))


@pytest.mark.parametrize(
    "edges",
    [
        [("a", "b"), ("c", "b")],
        [["b", "a"], ["a", "b"], ["b", "c"]],
        {"a": ["b"], "b": ["a", "c"], "c": ["b"]},
    ],
)
def test_explicit_edges_in_every_form(edges: EdgeList) -> None:
    topology = build_topology("edges", ["c", "a", "b"], edges=edges)
    assert topology == Topology(("c", "a", "b"), frozenset({("a", "b"), ("b", "c")}))
    assert topology.neighbours("b") == ("a", "c")


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ([("a", "b")], "not connected; it falls apart into a, b | c"),
        ([("a", "b"), ("b", "c"), ("c", "c")], "c cannot be its own neighbour"),
        ([("a", "b"), ("b", "cc")], "unknown site 'cc'; did you mean 'c'"),
        ([("a", "b", "c")], "an edge joins two sites"),
        ([], "falls apart into a | b | c"),
        ({"a": ["b"], "b": ["a", "c"]}, "b lists c as a neighbour, but c does not list b"),
    ],
)
def test_wrong_edges_are_named(edges: EdgeList, said: str) -> None:
    with pytest.raises(TopologyError) as refused:
        build_topology("edges", ["a", "b", "c"], edges=edges)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("degree", "sites", "said"),
    [
        (None, 4, "needs a degree"),
        (4, 4, "allow 0 to 3"),
        (-1, 4, "allow 0 to 3"),
        (3, 5, "need an even degree"),
        (1, 4, "cannot connect 4 sites"),
        (0, 2, "cannot connect 2 sites"),
    ],
)
def test_impossible_degrees_are_explained(degree: int | None, sites: int, said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        build_topology("random-regular", EIGHT[:sites], degree=degree)


def test_degree_zero_and_one_where_they_connect() -> None:
    assert build_topology("random-regular", ["a"], degree=0).edges == frozenset()
    assert build_topology("random-regular", ["a", "b"], degree=1).edges == {("a", "b")}


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(TopologyError, match="unknown topology 'rign'; did you mean 'ring'"):
        build_topology("rign", EIGHT)
    assert "ring" in topology_kinds()


def test_an_option_of_another_kind_is_refused() -> None:
    with pytest.raises(TopologyError, match="ring takes no degree"):
        build_topology("ring", EIGHT, degree=3)
    with pytest.raises(TopologyError, match="needs a list of edges"):
        build_topology("edges", EIGHT)


def test_sites_are_checked() -> None:
    with pytest.raises(TopologyError, match="named twice among the sites: N1"):
        build_topology("ring", ["N1", "N2", "N1"])
    with pytest.raises(TopologyError, match="at least one site"):
        build_topology("star", [])
    with pytest.raises(TopologyError, match="unknown site 'N9'"):
        build_topology("ring", EIGHT).neighbours("N9")


def test_grids_that_do_not_fill() -> None:
    with pytest.raises(TopologyError, match="7 sites make no grid"):
        build_topology("grid", EIGHT[:7])
    with pytest.raises(TopologyError, match="8 sites do not fill a grid of 3 columns"):
        build_topology("grid", EIGHT, columns=3)
    with pytest.raises(TopologyError, match="8 sites do not fill a grid of 0 columns"):
        build_topology("grid", EIGHT, columns=0)


def test_a_topology_built_by_hand_is_checked_as_well() -> None:
    with pytest.raises(TopologyError, match="alphabetical order"):
        Topology(("a", "b"), frozenset({("b", "a")}))
