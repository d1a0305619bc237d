"""The console in the chart: it is told every site, and reaches what it asks and nothing else."""

from __future__ import annotations

import pytest

from chart import Pod, Release, feature, matches, with_values
from concord.console.places import Place, parse_sites, places


def console_of(release: Release) -> Pod:
    (found,) = (pod for pod in release.pods() if pod.component == "console")
    return found


def places_of(release: Release) -> tuple[Place, ...]:
    flags = dict(text.split("=", 1) for text in console_of(release).containers[0]["args"][1:])
    return places(parse_sites([flags["--sites"]], "--sites"), parse_sites([flags["--predict-at"]], "--predict-at"))


@pytest.mark.parametrize("name", ["console", "console-split"])
def test_every_address_is_a_service_with_pods_that_the_console_reaches(name: str) -> None:
    release = feature(name)
    assert [place.name for place in places_of(release)] == [f"n{i}" for i in range(1, 9)]
    for place in places_of(release):
        for url in (place.status, place.predict):
            service = release.get("Service", url.removeprefix("http://").removesuffix(":8080"))
            (pod,) = (
                pod for pod in release.pods() if matches({"matchLabels": service["spec"]["selector"]}, pod.labels)
            )
            assert pod.site == place.name
            assert pod.component in ("site", "trainer", "inference")
            assert lets_in(release, pod, console_of(release)) == {8080}


def lets_in(release: Release, target: Pod, source: Pod) -> set[int]:
    (policy,) = (one for one in release.of("NetworkPolicy") if matches(one["spec"]["podSelector"], target.labels))
    return {
        port["port"]
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
        if "podSelector" in peer and "namespaceSelector" not in peer and matches(peer["podSelector"], source.labels)
        for port in rule["ports"]
    }


def test_it_does_not_get_to_doors_and_redis() -> None:
    release = feature("console-split")
    for pod in release.pods():
        if pod.component in ("exchange", "redis"):
            assert lets_in(release, pod, console_of(release)) == set()


def test_there_is_none_by_default_and_an_ingress_only_if_asked_for() -> None:
    assert all(pod.component != "console" for pod in feature("default").pods())
    assert not with_values(console={"enabled": True}).of("Ingress")
    (ingress,) = feature("console").of("Ingress")
    assert ingress["spec"]["tls"] == [{"hosts": ["concord.example.org"], "secretName": "concord-console-tls"}]
