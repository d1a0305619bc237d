"""The chart and the fleet agree: its Services are sites, its Role is what the fleet asks for, its document a start."""

from __future__ import annotations

import pytest

from chart import NAMESPACE, feature, with_values
from cluster import ROLE
from concord.fleet.plan import decide
from concord.fleet.settings import load_fleet_settings
from concord.fleet.sites import FEDERATION, PART_OF, read_sites
from concord.job import parse_job
from concord.job.membership import Membership


@pytest.mark.parametrize("name", ["default", "fleet", "fleet-split", "insecure", "job-file", "sites"])
def test_the_doors_are_the_sites_that_a_fleet_sees(name: str) -> None:
    release = feature(name)
    federation = parse_job(release.job).name
    seen = [
        {**service, "metadata": {**service["metadata"], "creationTimestamp": "2026-01-01T00:00:00Z"}}
        for service in release.of("Service")
        if service["metadata"]["labels"].get(FEDERATION) == federation
        and service["metadata"]["labels"].get(PART_OF) == "concord"
    ]
    sightings, problems = read_sites(seen, [], [])
    assert problems == []
    members = {name: sighting.member for name, sighting in sightings.items()}
    assert members == dict(Membership.from_json(release.membership).sites)


def test_its_pods_are_shown_as_pods_of_their_sites() -> None:
    release = feature("fleet-split")
    pods = [
        {"metadata": {"name": pod.name, "labels": dict(pod.labels)}, "spec": {}, "status": {"phase": "Running"}}
        for pod in release.pods()
        if pod.labels.get(FEDERATION) == "digits" and pod.labels.get(PART_OF) == "concord"
    ]
    sightings, _ = read_sites([], [], pods)
    assert {site: len(sighting.pods) for site, sighting in sightings.items()} == {f"n{n}": 4 for n in range(1, 9)}


def test_the_role_is_what_the_fleet_asks_for() -> None:
    rules = feature("fleet").get("Role", "concord-fleet")["rules"]
    given = {
        (resource, frozenset(rule["verbs"]), len(rule.get("resourceNames", ())))
        for rule in rules
        for resource in rule["resources"]
    }
    assert given == {(resource, verbs, len(names or ())) for resource, verbs, names in ROLE}


def test_its_settings_are_read_as_they_are_meant() -> None:
    release = feature("fleet")
    (pod,) = (pod for pod in release.pods() if pod.component == "fleet")
    (container,) = pod.spec["containers"]
    settings = load_fleet_settings({}, {one["name"]: one["value"] for one in container["env"] if "value" in one})
    assert (settings.federation, settings.namespace) == ("digits", NAMESPACE)
    assert (settings.degree, settings.grace) == (3, 120.0)
    assert settings.document in release.names("ConfigMap")
    assert settings.lease_name == "concord-fleet"


def test_the_chart_s_document_stands_until_something_changes() -> None:
    before = Membership.from_json(with_values(**{"fleet.enabled": True}).membership)
    decision = decide(before, dict(before.sites), degree=4)
    assert decision is not None
    assert decision.membership == before
