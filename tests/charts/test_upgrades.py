"""What an upgrade leaves alone: a site that comes or goes restarts nobody, and what is kept is kept."""

from __future__ import annotations

import json
import time

import pytest

from chart import CHART, Release, feature, helm, render, with_values
from concord.job import parse_job


def workloads(release: Release) -> dict[tuple[str, str], str]:
    """StatefulSets and Deployments as they are written, byte for byte."""
    return {key: text for key, text in release.texts.items() if key[0] in ("StatefulSet", "Deployment")}


def templates(release: Release) -> dict[str, str]:
    return {
        one["metadata"]["name"]: json.dumps(one["spec"]["template"], sort_keys=True)
        for one in (*release.of("StatefulSet"), *release.of("Deployment"))
    }


@pytest.mark.parametrize("layout", ["combined", "split"])
@pytest.mark.parametrize("topology", ["ring", "complete", "star"])
def test_a_ninth_site_changes_no_other_workload(layout: str, topology: str) -> None:
    eight = workloads(with_values(layout=layout, topology=topology))
    nine = workloads(with_values(layout=layout, topology=topology, **{"sites.n9": {}}))
    assert {key: nine[key] for key in eight} == eight
    assert {name for _, name in nine.keys() - eight.keys()} == {
        f"concord-n9{part}"
        for part in ([""] if layout == "combined" else ["-trainer", "-exchange", "-inference", "-redis"])
    }


def test_a_site_that_leaves_changes_no_other_workload() -> None:
    eight, seven = workloads(with_values()), workloads(render("--set", "sites.n3=null"))
    assert {key: text for key, text in eight.items() if key[1] != "concord-n3"} == seven


def test_a_ninth_site_changes_nobodys_data() -> None:
    job = parse_job(with_values(**{"sites.n9": {}}).job)
    assert job.split.shards == 8


def test_a_fleet_is_not_restarted_by_a_site_that_comes() -> None:
    eight = workloads(with_values(**{"fleet.enabled": True}))
    nine = workloads(with_values(**{"fleet.enabled": True, "sites.n9": {}}))
    assert {key: nine[key] for key in eight} == eight


def test_the_graph_is_in_no_pod_template() -> None:
    assert templates(with_values(topology="star")) == templates(with_values(topology="ring"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("job.training.learning_rate", 0.05), ("job.algorithm", "gossip"), ("job.split.seed", 3), ("job.task", "cifar10")],
)
def test_what_is_read_at_the_start_only_restarts_all(key: str, value: object) -> None:
    before, after = templates(with_values()), templates(with_values(**{key: value}))
    assert [name for name in before if before[name] == after[name]] == []


def test_what_one_site_does_otherwise_restarts_that_site() -> None:
    before, after = templates(with_values()), templates(with_values(**{"sites.n2": {"learning_rate": 0.05}}))
    assert [name for name in before if before[name] != after[name]] == ["concord-n2"]


def test_what_can_never_be_changed_does_not_depend_on_versions(tmp_path: object) -> None:
    release = feature("split")
    for one in release.of("StatefulSet"):
        fixed = {
            key: one["spec"].get(key)
            for key in ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy")
        }
        assert "0.1.0" not in json.dumps(fixed)


def test_the_authority_and_the_certificates_are_no_part_of_the_release() -> None:
    release = feature("default")
    assert release.names("Secret") == {"concord-redis"}
    assert "hook" in release.get("Job", "concord-certificates")["metadata"]["annotations"]["helm.sh/hook-delete-policy"]


def test_the_document_of_a_fleet_is_no_part_of_the_release() -> None:
    release = feature("fleet")
    (document,) = (one for one in release.of("ConfigMap") if "topology.json" in one["data"])
    assert document["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    mounted = {
        volume["configMap"]["name"]
        for pod in release.pods()
        if pod.site
        for volume in pod.spec["volumes"]
        if volume["name"] == "topology"
    }
    assert mounted == {document["metadata"]["name"]}
    (fleet,) = (pod for pod in release.pods() if pod.component == "fleet")
    given = {variable["name"]: variable.get("value") for variable in fleet.spec["containers"][0]["env"]}
    assert given["CONCORD_FLEET_CONFIG_MAP"] == document["metadata"]["name"]
    role = release.get("Role", "concord-fleet")
    named = {name for rule in role["rules"] for name in rule.get("resourceNames", [])}
    assert {
        document["metadata"]["name"],
        f"{document['metadata']['name']}-status",
        given["CONCORD_FLEET_LEASE"],
    } == named


def test_two_hundred_sites_are_rendered_in_ten_seconds() -> None:
    sites = [f"s{number:03}" for number in range(200)]
    started = time.process_time()
    answer = helm("template", "concord", str(CHART), "--set-json", f"sites={json.dumps(sites)}")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("kind: StatefulSet") == 200
    assert time.process_time() - started < 10
