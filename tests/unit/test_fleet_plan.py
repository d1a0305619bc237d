"""The fleet's decisions: whatever comes and goes, the graph stays connected and small, and few edges change."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import networkx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from concord.consensus.graph import build_topology
from concord.fleet.draft import can_exchange
from concord.fleet.plan import Decision, decide
from concord.job.membership import Member, MemberEdge, Membership

NAMES = [f"n{number}" for number in range(1, 13)]
DEGREES = st.integers(2, 5)


def member(name: str, reach: str = "both", url: bool = True) -> Member:
    return Member(url=f"http://{name}:8080" if url else None, reach=reach)


def members(names: Iterable[str]) -> dict[str, Member]:
    return {name: member(name) for name in names}


def graph(membership: Membership) -> networkx.Graph[str]:
    made: networkx.Graph[str] = networkx.Graph()
    made.add_nodes_from(membership.sites)
    made.add_edges_from(edge.sites for edge in membership.edges)
    return made


def given_graph(kind: str, names: Iterable[str]) -> Membership:
    names = tuple(names)
    options = {"degree": 4} if kind == "random-regular" else {}
    edges = build_topology(kind, names, **options).edges
    return Membership(version=1, sites=members(names), edges=tuple(MemberEdge(sites=edge) for edge in edges))


def decided(previous: Membership | None, wanted: Mapping[str, Member], degree: int = 4) -> Decision:
    decision = decide(previous, wanted, degree)
    assert decision is not None
    return decision


def changed(decision: Decision) -> int:
    return len(decision.added) + len(decision.removed)


sequences = st.lists(st.sampled_from(NAMES), min_size=1, max_size=40)
"""Each name joins if it is out, and leaves if it is in."""


def toggled(wanted: dict[str, Member], name: str) -> dict[str, Member]:
    if name in wanted:
        return {other: value for other, value in wanted.items() if other != name}
    return {**wanted, name: member(name)}


@given(sequences, DEGREES)
def test_from_nothing_the_graph_is_connected_bounded_and_outlives_any_one_site(names: list[str], degree: int) -> None:
    wanted: dict[str, Member] = {}
    standing: Membership | None = None
    for name in names:
        wanted = toggled(wanted, name)
        decision = decide(standing, wanted, degree)
        if decision is None or not wanted:
            continue
        before, standing = standing, decision.membership
        net = graph(standing)
        assert set(standing.sites) == set(wanted)
        assert Membership.from_json(standing.to_json()) == standing
        assert networkx.is_connected(net)
        assert max(dict(net.degree).values()) <= degree
        assert len(net) < 3 or networkx.is_biconnected(net)
        if before is not None and len(decision.joined) + len(decision.left) == 1:
            own = degree if decision.joined else graph(before).degree(name)
            assert changed(decision) <= own + 2


@given(
    st.sampled_from(["ring", "star", "chain", "double-ring", "complete", "exponential", "grid", "random-regular"]),
    st.integers(5, 12),
    st.lists(st.sampled_from([*NAMES, "m1", "m2", "m3"]), min_size=1, max_size=25),
    DEGREES,
)
def test_any_graph_that_was_given_is_a_start(kind: str, count: int, names: list[str], degree: int) -> None:
    standing = given_graph(kind, NAMES[: count if kind != "grid" else count - count % 2 if count > 5 else 6])
    wanted = dict(standing.sites)
    for name in names:
        before = graph(standing)
        wanted = toggled(wanted, name)
        if not wanted:
            return
        decision = decided(standing, wanted, degree)
        standing = decision.membership
        net = graph(standing)
        assert set(standing.sites) == set(wanted)
        assert networkx.is_connected(net)
        for site in net:
            held = before.degree(site) if site in before else 0
            assert net.degree(site) <= max(degree, held)
        if name in before:
            rest = before.copy()
            rest.remove_node(name)
            pieces = networkx.number_connected_components(rest)
            assert changed(decision) <= before.degree(name) + 2 + 2 * (pieces - 1)
        else:
            assert changed(decision) <= degree + 2


@given(sequences, DEGREES)
def test_nothing_changes_when_nothing_changed(names: list[str], degree: int) -> None:
    wanted: dict[str, Member] = {}
    standing: Membership | None = None
    for name in names:
        wanted = toggled(wanted, name)
        if not wanted:
            continue
        standing = decided(standing, wanted, degree).membership
        again = decided(standing, dict(reversed(wanted.items())), degree)
        assert again == Decision(standing)
        assert again.membership is standing


@given(sequences, DEGREES)
def test_a_new_leader_decides_as_the_old_one_would(names: list[str], degree: int) -> None:
    wanted: dict[str, Member] = {}
    standing: Membership | None = None
    for name in names:
        wanted = toggled(wanted, name)
        if not wanted:
            continue
        taken_over = None if standing is None else Membership.from_json(standing.to_json())
        decision = decided(standing, wanted, degree)
        assert decided(taken_over, dict(sorted(wanted.items(), reverse=True)), degree) == decision
        standing = decision.membership


@given(sequences, DEGREES)
def test_an_edge_that_comes_back_has_a_higher_epoch_than_ever(names: list[str], degree: int) -> None:
    wanted: dict[str, Member] = {}
    standing: Membership | None = None
    highest: dict[tuple[str, str], int] = {}
    before: set[tuple[str, str]] = set()
    for name in names:
        wanted = toggled(wanted, name)
        if not wanted:
            continue
        version = standing.version if standing else 0
        decision = decided(standing, wanted, degree)
        standing = decision.membership
        assert standing.version == version + bool(decision.joined or decision.left)
        for edge in standing.edges:
            if edge.sites in before:
                assert edge.epoch == highest[edge.sites]
            else:
                assert edge.epoch > highest.get(edge.sites, 0)
            highest[edge.sites] = edge.epoch
        before = {edge.sites for edge in standing.edges}


reaches = st.lists(st.sampled_from(["both", "both", "outbound", "inbound"]), min_size=len(NAMES), max_size=len(NAMES))


OUTBOUND_BUT_N2 = ["both" if name == "n2" else "outbound" for name in NAMES]


@example(["n1", "n2", "n11", "n6", "n2"], OUTBOUND_BUT_N2, 2)
@given(sequences, reaches, DEGREES)
def test_sites_that_cannot_call_each_other_never_become_neighbours(
    names: list[str], reach: list[str], degree: int
) -> None:
    kinds = {name: member(name, reach=kind, url=kind != "outbound") for name, kind in zip(NAMES, reach, strict=True)}
    wanted: dict[str, Member] = {}
    standing: Membership | None = None
    for name in names:
        if name in wanted:
            del wanted[name]
        else:
            wanted[name] = kinds[name]
        if not wanted:
            continue
        decision = decided(standing, wanted, degree)
        standing = decision.membership
        net = graph(standing)
        assert networkx.is_connected(net)
        assert max(dict(net.degree).values()) <= degree
        assert set(wanted) == set(standing.sites) | set(decision.waiting)
        assert not set(standing.sites) & set(decision.waiting)
        assert all(can_exchange(kinds[one], kinds[other]) for one, other in net.edges)
        assert decided(standing, wanted, degree) == Decision(standing, waiting=decision.waiting)


def test_a_ring_of_degree_two_stays_the_ring_that_a_job_would_make() -> None:
    standing = given_graph("ring", NAMES[:4])
    decision = decided(standing, members(NAMES[:5]), degree=2)
    assert {edge.sites for edge in decision.membership.edges} == build_topology("ring", NAMES[:5]).edges
    assert (len(decision.added), len(decision.removed)) == (2, 1)
    back = decided(decision.membership, members(NAMES[:4]), degree=2)
    assert {edge.sites for edge in back.membership.edges} == build_topology("ring", NAMES[:4]).edges
    assert (len(back.added), len(back.removed)) == (1, 2)


def test_a_newcomer_where_there_is_room_takes_no_edge_from_anyone() -> None:
    decision = decided(given_graph("ring", NAMES[:8]), members(NAMES[:9]))
    assert decision.removed == ()
    assert len(decision.added) == 4


def test_without_a_document_sites_are_put_in_the_order_of_their_numbers() -> None:
    decision = decided(None, members(["n10", "n9", "n2"]))
    assert list(decision.membership.sites) == ["n2", "n9", "n10"]
    assert decision.membership.version == 1
    assert {edge.epoch for edge in decision.membership.edges} == {1}


def test_many_sites_are_few_edges_apart() -> None:
    for degree, apart in ((3, 10), (4, 7), (6, 5)):
        net = graph(decided(None, members(f"n{number}" for number in range(64)), degree).membership)
        assert networkx.diameter(net) <= apart


def test_the_hub_of_a_star_may_go() -> None:
    decision = decided(given_graph("star", NAMES[:9]), members(NAMES[1:9]), degree=3)
    net = graph(decision.membership)
    assert networkx.is_connected(net)
    assert max(dict(net.degree).values()) <= 3
    assert len(decision.added) == 7, "eight pieces cannot be tied by fewer"


def test_what_a_site_says_of_itself_is_taken_over_and_moves_no_edge() -> None:
    standing = given_graph("ring", NAMES[:4])
    wanted = members(NAMES[:4])
    wanted["n1"] = Member(url="https://elsewhere:8443", learning_rate=0.2)
    decision = decided(standing, wanted)
    assert decision.membership.version == 2
    assert decision.membership.sites["n1"].url == "https://elsewhere:8443"
    assert set(decision.membership.edges) == set(standing.edges)


def test_a_site_that_cannot_be_called_any_more_is_moved_to_those_that_can() -> None:
    standing = given_graph("ring", NAMES[:4])
    wanted = members(NAMES[:4])
    wanted["n1"] = member("n1", reach="outbound")
    standing = decided(standing, wanted).membership
    wanted["n2"] = member("n2", reach="outbound")
    decision = decided(standing, wanted)
    assert ("n1", "n2") not in {edge.sites for edge in decision.membership.edges}
    assert networkx.is_connected(graph(decision.membership))


def test_a_federation_without_sites_is_never_written() -> None:
    assert decide(None, {}, 4) is None
    standing = given_graph("ring", NAMES[:3])
    assert decided(standing, {}) == Decision(standing)


def test_the_version_rises_above_what_was_ever_seen() -> None:
    standing = Membership(version=2, sites=members(["n1", "n2"]), edges=(MemberEdge(sites=("n1", "n2"), epoch=9),))
    assert decided(standing, members(["n1", "n2", "n3"])).membership.version == 10
    floored = decide(standing, members(["n1", "n2", "n3"]), 4, floor=30)
    assert floored is not None
    assert floored.membership.version == 31


@pytest.mark.parametrize("count", range(1, 7))
def test_all_sites_may_be_replaced_at_once(count: int) -> None:
    standing = given_graph("complete", NAMES[:count])
    decision = decided(standing, members(NAMES[6 : 6 + count]))
    assert set(decision.membership.sites) == set(NAMES[6 : 6 + count])
    assert all(edge.epoch == 2 for edge in decision.membership.edges)
    assert networkx.is_connected(graph(decision.membership))


def test_sites_full_of_edges_make_room_for_what_a_cut_site_held() -> None:
    # Three complete graphs of four, each tied to the middle by its one site of degree four: all are full.
    groups = [[f"{letter}{number}" for number in range(4)] for letter in "abc"]
    edges = [pair for group in groups for pair in itertools.combinations(group, 2)]
    edges += [("a0", "z"), ("b0", "z"), ("c0", "z")]
    names = [*itertools.chain.from_iterable(groups), "z"]
    standing = Membership(version=1, sites=members(names), edges=tuple(MemberEdge(sites=edge) for edge in edges))
    for degree in (3, 4):
        decision = decided(standing, members(names[:-1]), degree)
        net = graph(decision.membership)
        assert networkx.is_connected(net)
        assert all(net.degree(site) <= max(degree, graph(standing).degree(site)) for site in net)
