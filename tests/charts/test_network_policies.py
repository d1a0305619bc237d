"""Network policies: who may talk to whom is who are neighbours, and those whom the values name."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from chart import FEATURES, Object, Pod, Release, feature, matches
from concord.job.membership import Membership

DOOR, REST, REDIS = 8443, 8080, 6379
WITH_POLICIES = [name for name in FEATURES if name != "network-policy-off"]


def policies_of(release: Release, pod: Pod) -> list[Object]:
    return [one for one in release.of("NetworkPolicy") if matches(one["spec"]["podSelector"], pod.labels)]


def allows(release: Release, source: Pod, target: Pod, port: int) -> bool:
    """Whether both the source may send there and the target takes it, as the cluster would decide."""
    return _sides(release, source, target, port, "egress", "to") and _sides(
        release, target, source, port, "ingress", "from"
    )


def _sides(release: Release, subject: Pod, other: Pod, port: int, side: str, who: str) -> bool:
    policies = policies_of(release, subject)
    return not policies or any(
        _names(peers, other)
        for policy in policies
        for rule in policy["spec"].get(side, [])
        if port in [one["port"] for one in rule["ports"]]
        for peers in [rule.get(who)]
    )


def _names(peers: list[Object] | None, other: Pod) -> bool:
    if peers is None:
        return True
    return any(
        "podSelector" in peer and "namespaceSelector" not in peer and matches(peer["podSelector"], other.labels)
        for peer in peers
    )


def processes(release: Release, *components: str) -> list[Pod]:
    return [pod for pod in release.pods() if pod.site and pod.component in components]


@pytest.mark.parametrize(
    "name",
    ["default", "split", "star", "grid", "edges", "neighbours", "job-file", "cert-manager", "sites", "peers-two-sites"],
)
def test_doors_are_open_along_the_edges_and_nowhere_else(name: str) -> None:
    release = feature(name)
    doors = processes(release, "site", "exchange")
    allowed = {
        (one.site, other.site)
        for one in doors
        for other in doors
        if one is not other and allows(release, one, other, DOOR)
    }
    here = {pod.site for pod in doors}
    edges = {edge for edge in Membership.from_json(release.membership).graph().edges if here.issuperset(edge)}
    assert allowed == edges | {(other, one) for one, other in edges}


def test_with_a_fleet_doors_are_open_to_all_sites_of_the_federation_and_no_others() -> None:
    for name in ("fleet", "fleet-split"):
        release = feature(name)
        doors = processes(release, "site", "exchange")
        assert all(allows(release, one, other, DOOR) for one in doors for other in doors if one is not other)
        (fleet,) = (pod for pod in release.pods() if pod.component == "fleet")
        assert not any(allows(release, fleet, door, DOOR) for door in doors)


@pytest.mark.parametrize("name", WITH_POLICIES)
def test_every_pod_has_one_policy_for_both_directions(name: str) -> None:
    release = feature(name)
    for pod in release.pods():
        (policy,) = policies_of(release, pod)
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("name", WITH_POLICIES)
def test_no_rule_is_open_to_all_by_being_empty(name: str) -> None:
    for policy in feature(name).of("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], policy["metadata"]["name"]
            assert rule["ports"]
        for rule in policy["spec"]["egress"]:
            assert rule["ports"]
            assert rule.get("to") != []


def test_a_redis_is_for_its_own_site_alone() -> None:
    release = feature("split")
    for redis in processes(release, "redis"):
        callers = {pod.name for pod in release.pods() if pod is not redis and allows(release, pod, redis, REDIS)}
        own = {pod.name for pod in release.pods() if pod.site == redis.site and pod.component != "redis"}
        assert callers == own
        (policy,) = policies_of(release, redis)
        assert policy["spec"]["egress"] == []


@pytest.mark.parametrize("name", ["default", "split", "cert-manager", "insecure", "shared-secret"])
def test_the_test_reaches_the_doors_and_the_predictions(name: str) -> None:
    release = feature(name)
    (test,) = (pod for pod in release.pods() if pod.component == "test")
    door = REST if name in ("insecure", "shared-secret") else DOOR
    assert all(allows(release, test, pod, door) for pod in processes(release, "site", "exchange"))
    assert all(allows(release, test, pod, REST) for pod in processes(release, "site", "inference"))


def test_a_load_test_reaches_the_predictions_and_nothing_else() -> None:
    release = feature("loadtest")
    (job,) = (pod for pod in release.pods() if pod.component == "loadtest")
    assert all(allows(release, job, pod, REST) for pod in processes(release, "site"))
    assert not any(allows(release, job, pod, DOOR) for pod in processes(release, "site"))


def test_predictions_are_for_the_namespace_and_training_is_not() -> None:
    release = feature("split")
    client = Pod({"kind": "Pod", "metadata": {"name": "client"}}, {"app": "client"}, {})
    for pod in release.pods():
        assert _sides(release, pod, client, REST, "ingress", "from") is (pod.component == "inference"), pod.name
        assert not _sides(release, pod, client, DOOR, "ingress", "from")


def test_nobody_else_comes_in_where_the_values_say_so() -> None:
    release = feature("network-policy-closed")
    for pod in processes(release, "site"):
        (policy,) = policies_of(release, pod)
        assert [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["ingress"]] == [[DOOR]]


def test_values_name_who_else_comes_in_and_where_one_goes() -> None:
    release = feature("network-policy")
    policy = release.get("NetworkPolicy", "concord-n1-inference")["spec"]
    assert {
        "podSelector": {"matchLabels": {"app": "viewer"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "applications"}},
    } in policy["ingress"][0]["from"]
    assert policy["ingress"][-1]["from"] == [{"podSelector": {"matchLabels": {"app": "debug"}}}]
    assert policy["egress"][-1]["to"] == [{"ipBlock": {"cidr": "203.0.113.0/24"}}]
    assert policy["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.96.0.10/32"}}]


def test_sites_elsewhere_come_and_are_called_at_their_addresses() -> None:
    policy = feature("peers").get("NetworkPolicy", "concord-n1")["spec"]
    assert _blocks(policy["ingress"], "from", DOOR) == {"192.0.2.16/28", "198.51.100.7/32", "2001:db8::/64"}
    assert _blocks(policy["egress"], "to", DOOR) == {"192.0.2.16/28"}  # n4 cannot be called, n3 is no neighbour
    ring = feature("peers-two-sites")
    assert _blocks(ring.get("NetworkPolicy", "concord-a1-exchange")["spec"]["egress"], "to", 30444) == {"192.0.2.0/24"}
    assert _blocks(ring.get("NetworkPolicy", "concord-a2-exchange")["spec"]["egress"], "to", 30443) == {"192.0.2.0/24"}


def test_redis_of_ones_own_is_reached_at_its_addresses() -> None:
    policy = feature("external-redis").get("NetworkPolicy", "concord-n1-trainer")["spec"]
    assert _blocks(policy["egress"], "to", 6380) == {"10.1.0.0/16"}


def test_names_can_be_looked_up_by_everyone_who_needs_to() -> None:
    release = feature("split")
    for pod in release.pods():
        (policy,) = policies_of(release, pod)
        ports = {(port["protocol"], port["port"]) for rule in policy["spec"]["egress"] for port in rule["ports"]}
        assert pod.component == "redis" or {("UDP", 53), ("TCP", 53)} <= ports


def test_those_who_ask_the_kubernetes_api_reach_it() -> None:
    for name, component in (("default", "certificates"), ("fleet", "fleet")):
        release = feature(name)
        (pod,) = (pod for pod in release.pods() if pod.component == component)
        (policy,) = policies_of(release, pod)
        assert {6443, 443} <= {
            port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"] if "to" not in rule
        }


def _blocks(rules: list[Object], who: str, port: int) -> set[str]:
    return {
        text for rule in rules if [one["port"] for one in rule["ports"]] == [port] for text in _cidrs(rule.get(who, []))
    }


def _cidrs(peers: list[Object]) -> Iterator[str]:
    for peer in peers:
        if "ipBlock" in peer:
            yield str(ip_network(peer["ipBlock"]["cidr"]))
