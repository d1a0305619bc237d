"""A release from its installation to its end, by the real helm, against a server that keeps what helm writes.

What Kubernetes would make of the objects is not seen here; what helm does with them is: hooks in their order, what is
kept from revision to revision, what a rollback brings back and what it leaves alone.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chart import CHART, NAMESPACE
from helm_api import HelmApi, helm_api
from tools.get_helm import find

Helm = Callable[..., str]
HOOK = "concord-certificates"
EIGHT = {f"concord-n{number}" for number in range(1, 9)}


@pytest.fixture
def cluster() -> Iterator[HelmApi]:
    with helm_api() as api:
        yield api


@pytest.fixture
def helm(cluster: HelmApi, tmp_path: Path) -> Helm:
    """helm, with everything it remembers in a folder of the test."""
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": cluster.url}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    places = {f"HELM_{name}_HOME": str(tmp_path / name) for name in ("CACHE", "CONFIG", "DATA")}
    quick = {"HELM_BURST_LIMIT": "10000", "HELM_QPS": "10000"}
    own = {"KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}
    environment = {**os.environ, **places, **quick, **own}

    def run(*arguments: str) -> str:
        cluster.written.clear()
        command = [find(), *arguments, "--namespace", NAMESPACE]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    return run


def upgrade(helm: Helm, *arguments: str) -> None:
    helm("upgrade", "concord", str(CHART), "--reset-then-reuse-values", *arguments)


def specs(cluster: HelmApi) -> dict[str, str]:
    names = cluster.names("statefulsets")
    return {name: json.dumps(cluster.get("statefulsets", name)["spec"], sort_keys=True) for name in names}


def test_a_release_from_its_installation_to_its_end(helm: Helm, cluster: HelmApi) -> None:
    helm("install", "concord", str(CHART))
    of_hook = [place for place, (_, _, name) in enumerate(cluster.written) if name == HOOK]
    assert [cluster.written[place][1] for place in of_hook if cluster.written[place][0] != "delete"] == [
        *("serviceaccounts", "roles", "rolebindings", "networkpolicies", "jobs")
    ]
    assert min(place for place, one in enumerate(cluster.written) if one[1] == "statefulsets") > max(of_hook)
    assert not [name for _, _, name in cluster.objects if name == HOOK]
    assert cluster.names("statefulsets") == EIGHT
    passwords, sites = cluster.get("secrets", "concord-redis")["data"], specs(cluster)
    assert set(passwords) == {f"n{number}" for number in range(1, 9)}
    assert len(set(passwords.values())) == 8

    # A ninth site: nobody else is touched, and passwords that were drawn at random stay.
    upgrade(helm, "--set-json", "sites.n9={}")
    assert cluster.names("statefulsets") == {*EIGHT, "concord-n9"}
    assert {name: spec for name, spec in specs(cluster).items() if name != "concord-n9"} == sites
    assert passwords.items() < cluster.get("secrets", "concord-redis")["data"].items()
    assert document(cluster)["version"] == 2
    assert "n9" in document(cluster)["sites"]

    # It goes again, by the same flags; and comes back by a rollback, for which certificates are looked after first.
    upgrade(helm, "--set", "sites.n9=null")
    assert cluster.names("statefulsets") == EIGHT
    helm("rollback", "concord", "2")
    assert ("jobs", HOOK) in [(resource, name) for _, resource, name in cluster.written]
    assert cluster.names("statefulsets") == {*EIGHT, "concord-n9"}
    assert "n9" in document(cluster)["sites"]
    assert cluster.get("secrets", "concord-redis")["data"].items() >= passwords.items()

    assert "a line of the test's log" in helm("test", "concord", "--logs")
    helm("uninstall", "concord")
    assert not cluster.names("statefulsets") | cluster.names("services") | cluster.names("secrets")


def test_what_a_fleet_wrote_is_laid_over_by_no_upgrade_and_no_rollback(helm: Helm, cluster: HelmApi) -> None:
    helm("install", "concord", str(CHART), "--set", "fleet.enabled=true,tls.mode=disabled")
    assert len(document(cluster)["sites"]) == 8
    secret = cluster.get("secrets", "concord-secret")["data"]
    key = ("configmaps", NAMESPACE, "concord-fleet-topology")
    written = json.dumps({**document(cluster), "version": 99})
    cluster.put(key, {**cluster.objects[key], "data": {"topology.json": written}})
    upgrade(helm, "--set-json", "sites.n9={}")
    assert document(cluster)["version"] == 99
    helm("rollback", "concord", "1")
    assert document(cluster)["version"] == 99
    assert cluster.get("secrets", "concord-secret")["data"] == secret
    helm("uninstall", "concord")
    assert document(cluster)["version"] == 99


def document(cluster: HelmApi) -> dict[str, object]:
    """The membership document, whosever it is."""
    (name,) = (name for name in cluster.names("configmaps") if name.endswith("-topology"))
    text = cluster.get("configmaps", name)["data"]["topology.json"]
    found: dict[str, object] = json.loads(text)
    return found
