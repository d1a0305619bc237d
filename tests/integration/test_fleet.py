"""The fleet against an API server over real HTTP, with the official client, under exactly the role it asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import networkx
import pytest

import concord.apps.fleet
from cluster import DOCUMENT, NAMESPACE, ROLE, Namespace
from concord.apps.fleet import Fleet
from concord.consensus.graph import build_topology
from concord.job.membership import Member, MemberEdge, Membership
from kube_api import KubeApi

SITES = ("N1", "N2", "N3", "N4")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with KubeApi(ROLE) as api:
        yield Namespace(api)


Start = Callable[..., Fleet]


@pytest.fixture
def start(namespace: Namespace) -> Iterator[Start]:
    """Starts a replica that is stopped at the end, if the test does not stop it."""
    running: list[Fleet] = []

    def started(identity: str = "fleet-a", **settings: Any) -> Fleet:
        fleet = namespace.fleet(identity, **settings)
        running.append(fleet)
        fleet.start()
        return fleet

    yield started
    for fleet in running:
        fleet.stop()


def ring(version: int, *sites: str) -> Membership:
    return Membership(
        version=version,
        sites={site: Member(url=f"https://{site.lower()}.edge.svc:8443") for site in sites},
        edges=tuple(MemberEdge(sites=edge) for edge in build_topology("ring", sites).edges),
    )


def is_connected(topology: Membership) -> bool:
    net: networkx.Graph[str] = networkx.Graph(edge.sites for edge in topology.edges)
    return set(net) == set(topology.sites) and networkx.is_connected(net)


# --- sites come and go -------------------------------------------------------------------------------------------


def test_it_begins_where_nothing_is(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    fleet = start()
    topology = namespace.until_sites(*SITES)
    assert topology.version == 1
    assert is_connected(topology)
    assert topology.sites["N1"] == Member(url="https://n1.edge.svc:8443")
    status = namespace.until(lambda: (found := namespace.status()).get("version") == 1 and found)
    assert status["ready"] == list(SITES)
    assert status["leader"] == "fleet-a"
    assert status["sites"]["N1"]["neighbours"] == ["N2", "N3", "N4"]
    namespace.until(lambda: namespace.events("TopologyChanged"))
    assert {event["note"] for event in namespace.events("SiteJoined")} == {f"site {site} joined" for site in SITES}
    assert fleet.status()["failures"] == []


def test_it_takes_over_what_the_chart_wrote_and_changes_nothing(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    namespace.write(ring(1, *SITES).to_json(), other="kept")
    before = namespace.api.get("configmaps", NAMESPACE, DOCUMENT)
    start()
    namespace.until(lambda: namespace.status().get("version") == 1)
    assert namespace.api.get("configmaps", NAMESPACE, DOCUMENT) == before
    assert namespace.events("TopologyChanged") == []


def test_a_site_joins_with_few_edges_changed_and_the_rest_of_the_object_stays(
    namespace: Namespace, start: Start
) -> None:
    namespace.add(*SITES)
    given = ring(1, *SITES)
    namespace.write(given.to_json(), other="kept")
    start(degree=2)
    namespace.until(lambda: namespace.status().get("version") == 1)
    namespace.add("N5", **{"learning-rate": "0.2"})
    topology = namespace.until_sites(*SITES, "N5")
    assert topology.version == 2
    assert {edge.sites for edge in topology.edges} == build_topology("ring", (*SITES, "N5")).edges
    assert {edge.epoch for edge in topology.edges if "N5" in edge.sites} == {2}
    assert {edge.epoch for edge in topology.edges if "N5" not in edge.sites} == {1}
    assert topology.sites["N5"].learning_rate == 0.2
    written = namespace.api.get("configmaps", NAMESPACE, DOCUMENT)
    assert written is not None
    assert written["data"]["other"] == "kept"
    assert written["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "Helm"}
    changed = namespace.until(lambda: namespace.events("TopologyChanged"))
    assert changed[0]["note"] == "version 2: 5 sites, 5 edges (2 added, 1 removed)"
    assert changed[0]["regarding"]["name"] == DOCUMENT


def test_a_site_that_is_deleted_leaves_and_its_edges_come_back_newer(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    start(degree=2)
    first = namespace.until_sites(*SITES)
    namespace.remove("N2")
    second = namespace.until_sites("N1", "N3", "N4")
    assert second.version == 2
    assert is_connected(second)
    namespace.add("N2")
    third = namespace.until_sites(*SITES)
    assert third.version == 3
    assert {edge.epoch for edge in third.edges if "N2" in edge.sites} == {3}
    assert {edge.epoch for edge in first.edges} == {1}
    assert [event["note"] for event in namespace.events("SiteLeft")] == ["site N2 left"]


def test_a_burst_of_joins_is_one_new_version(namespace: Namespace, start: Start) -> None:
    namespace.add("N1")
    start()
    namespace.until_sites("N1")
    with namespace.api.paused():
        namespace.add(*(f"N{number}" for number in range(2, 9)))
    assert namespace.until_sites(*(f"N{number}" for number in range(1, 9))).version == 2


def test_a_site_that_flaps_within_the_grace_keeps_its_edges(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    start()
    standing = namespace.until_sites(*SITES)
    for _ in range(3):
        namespace.set_ready("N3", False)
        namespace.until_not_ready("N3")
        namespace.set_ready("N3", True)
        namespace.until_not_ready()
    assert namespace.topology() == standing


def test_a_site_away_for_longer_than_the_grace_leaves_and_comes_back(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    start(grace=0.3)
    namespace.until_sites(*SITES)
    namespace.set_ready("N3", False)
    namespace.until_sites("N1", "N2", "N4")
    status = namespace.until(lambda: (found := namespace.status()).get("version") == 2 and found)
    assert status["not_ready"] == ["N3"]
    assert status["sites"]["N3"]["member"] is False
    namespace.set_ready("N3", True)
    assert namespace.until_sites(*SITES).version == 3


def test_when_all_sites_are_gone_the_last_topology_stands(namespace: Namespace, start: Start) -> None:
    namespace.add("N1", "N2")
    start()
    standing = namespace.until_sites("N1", "N2")
    with namespace.api.paused():
        namespace.remove("N1")
        namespace.remove("N2")
    assert namespace.until(lambda: namespace.events("NoSites"))[0]["type"] == "Warning"
    assert namespace.topology() == standing


# --- watches -----------------------------------------------------------------------------------------------------


def lists(namespace: Namespace, kind: str) -> int:
    return namespace.api.requests.count(f"list {kind}")


def test_a_watch_that_is_cut_goes_on_where_it_was(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    start()
    namespace.until_sites(*SITES)
    for number in range(5, 9):
        namespace.until(lambda: namespace.api.watches("services"))
        with namespace.api.away():
            # While nobody watches: only a watch from the last version can tell of it without a new list.
            namespace.add(f"N{number}")
        namespace.until_sites(*(f"N{one}" for one in range(1, number + 1)))
    assert lists(namespace, "services") == 1


def test_after_a_bookmark_it_goes_on_from_there(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    start()
    namespace.until_sites(*SITES)
    namespace.until(lambda: namespace.api.watches("services"))
    bookmarked = namespace.api.bookmark()
    namespace.until(lambda: namespace.api.told("services") == bookmarked)
    namespace.api.cut_watches()
    namespace.until(lambda: f"watch services {bookmarked}" in namespace.api.requests)


@pytest.mark.parametrize("gone_as", ["status", "event"])
def test_a_version_that_the_server_forgot_is_listed_anew(namespace: Namespace, start: Start, gone_as: str) -> None:
    namespace.api.gone_as = gone_as  # type: ignore[assignment]
    namespace.add(*SITES)
    start()
    namespace.until_sites(*SITES)
    with namespace.api.away():
        namespace.add("N5")
        namespace.remove("N1")
        namespace.api.forget()
    topology = namespace.until_sites("N2", "N3", "N4", "N5")
    assert is_connected(topology)
    assert lists(namespace, "services") > 1


def test_while_the_server_is_away_nothing_is_decided_and_then_it_goes_on(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    fleet = start(grace=0.5)
    standing = namespace.until_sites(*SITES)
    namespace.set_ready("N3", False)
    namespace.until_not_ready("N3")
    with namespace.api.away():
        namespace.until(lambda: not fleet.status()["leading"], "it ceases to lead")
        namespace.until(lambda: fleet.status()["failures"])
        # Ready again, and known to nobody: by now the grace is over.
        namespace.set_ready("N3", True)
    namespace.until_not_ready()
    assert namespace.topology() == standing
    assert fleet.started
    assert fleet.alive
    namespace.until(lambda: not fleet.status()["failures"])


# --- what others do ----------------------------------------------------------------------------------------------


def test_a_write_that_meets_another_is_decided_anew(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    namespace.write(ring(1, *SITES).to_json())
    start(degree=2)
    namespace.until(lambda: namespace.status().get("version") == 1)

    def write_first() -> None:
        namespace.write(ring(7, "N1", "N3", "N2", "N4").to_json())

    namespace.api.before_next_update(write_first, DOCUMENT)
    namespace.add("N5")
    topology = namespace.until_sites(*SITES, "N5")
    assert topology.version == 8
    assert {edge.sites for edge in topology.edges} == build_topology("ring", ("N1", "N3", "N2", "N4", "N5")).edges


@pytest.mark.parametrize("broken", ["nonsense", '{"version": 1, "sites": {"N9": {}}, "edges": []}', ""])
def test_a_document_broken_by_hand_is_put_right_and_told(namespace: Namespace, start: Start, broken: str) -> None:
    namespace.add(*SITES)
    start()
    standing = namespace.until_sites(*SITES)
    namespace.write(broken)
    restored = namespace.until_sites(*SITES)
    assert {edge.sites for edge in restored.edges} == {edge.sites for edge in standing.edges}
    assert restored.version >= standing.version
    event = namespace.until(lambda: namespace.events("BadTopology"))[0]
    assert event["type"] == "Warning"
    assert f"ConfigMap {DOCUMENT}: " in event["note"]


def test_a_leader_that_begins_with_a_broken_document_knows_the_last_good_one(
    namespace: Namespace, start: Start
) -> None:
    namespace.add(*SITES)
    namespace.write(ring(6, *SITES).to_json())
    fleet = start()
    namespace.until(lambda: namespace.status().get("version") == 6)
    fleet.stop()
    namespace.write('{"version": 6, "sites": broken')
    start("fleet-b")
    restored = namespace.until_sites(*SITES)
    assert restored.version == 7
    assert set(restored.edges) == set(ring(6, *SITES).edges)


def test_a_document_that_is_deleted_is_written_anew(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    start()
    standing = namespace.until_sites(*SITES)
    namespace.api.delete("configmaps", NAMESPACE, DOCUMENT)
    assert namespace.until_sites(*SITES) == standing


def test_a_service_that_is_no_site_is_told_once(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    namespace.add_service("odd", "no site at all")
    namespace.add_service("zz-second", "N1")
    start()
    namespace.until_sites(*SITES)
    event = namespace.until(lambda: namespace.events("NotASite"))[0]
    assert (event["type"], event["regarding"]["kind"], event["regarding"]["name"]) == ("Warning", "Service", "odd")
    assert namespace.until(lambda: namespace.events("SameSite"))[0]["regarding"]["name"] == "zz-second"
    namespace.add("N5")
    namespace.until_sites(*SITES, "N5")
    namespace.until(lambda: "N5" in namespace.status().get("ready", []))
    assert len(namespace.events("NotASite")) == 1
    assert len(namespace.status()["problems"]) == 2


# --- two of them -------------------------------------------------------------------------------------------------


def test_one_leads_and_when_it_stops_the_other_goes_on(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    first = start("fleet-a")
    standing = namespace.until_sites(*SITES)
    second = start("fleet-b")
    namespace.until(lambda: second.started)
    assert not second.status()["leading"]
    assert namespace.until(lambda: second.status()["leader"]) == "fleet-a"
    first.stop()
    assert namespace.lease_holder() in ("", "fleet-b")
    namespace.until(lambda: namespace.lease_holder() == "fleet-b")
    namespace.add("N5")
    topology = namespace.until_sites(*SITES, "N5")
    assert topology.version == standing.version + 1
    namespace.until(lambda: namespace.status().get("leader") == "fleet-b")


def test_who_loses_the_lease_writes_nothing_more(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    fleet = start("fleet-a")
    namespace.until_sites(*SITES)
    lease = namespace.api.get("leases", NAMESPACE, "digits-fleet")
    assert lease is not None
    lease["spec"].update(holderIdentity="stranger", leaseDurationSeconds=3600, renewTime="2026-01-01T00:00:00.000000Z")
    namespace.api.put("leases", NAMESPACE, lease)
    namespace.until(lambda: not fleet.status()["leading"])
    standing = namespace.text()
    namespace.add("N5")
    namespace.until(lambda: "N5" in fleet.status()["ready"], "it goes on watching")
    asked = len(namespace.api.requests)
    namespace.until(lambda: namespace.api.requests[asked:].count(f"get configmaps {DOCUMENT}") >= 2)
    assert namespace.text() == standing
    assert namespace.lease_holder() == "stranger"


# --- its role ----------------------------------------------------------------------------------------------------


def test_the_role_that_these_tests_enforce_is_the_one_it_asks_for() -> None:
    text = (concord.apps.fleet.__doc__ or "").replace("<config map>", DOCUMENT).replace("<lease>", "digits-fleet")
    asked: set[tuple[str, frozenset[str], frozenset[str] | None]] = set()
    columns = re.findall(r'^    (?:""|[a-z.]+k8s\.io) {2,}(.+?) {2,}(.+?)(?: {2,}(.+))?$', text, re.MULTILINE)
    for resources, verbs, names in columns:
        for resource in resources.split(", "):
            asked.add((resource, frozenset(verbs.split(", ")), frozenset(names.split(", ")) if names else None))
    assert asked == set(ROLE)
