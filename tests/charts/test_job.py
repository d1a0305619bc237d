"""The job and the members that the chart writes are what sites read, whichever way the values say them."""

from __future__ import annotations

import pytest
import yaml

from chart import CHART, FEATURES, feature, render, with_values
from concord.job import parse_job
from concord.job.membership import Membership


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_has_a_job_and_members_that_can_be_read(name: str) -> None:
    release = feature(name)
    job = parse_job(release.job)
    job.require_deployable()
    assert set(Membership.from_json(release.membership).sites) == set(job.site_names)
    for pod in release.pods():
        for container in pod.containers:
            for variable in container.get("env", []):
                if variable["name"] == "CONCORD_SITE":
                    assert variable["value"] in job.site_names


def test_the_default_is_the_example_at_a_pace_for_a_laptop() -> None:
    example = parse_job((CHART.parents[1] / "examples" / "digits.yaml").read_text())
    job = parse_job(feature("default").job)
    assert (job.task, job.algorithm) == (example.task, example.algorithm)
    assert (job.split.kind, job.split.classes, job.split.shards) == ("classes-per-site", example.split.classes, 8)
    assert job.training.local_steps == example.training.local_steps
    assert job.training.learning_rate == example.training.learning_rate
    assert job.training.rounds is None
    assert job.training.pace > 4 * example.training.pace


def test_it_goes_on_for_ever_though_helm_drops_a_null() -> None:
    assert parse_job(with_values(**{"job.training.pace": 0.5}).job).training.rounds is None
    assert parse_job(with_values(**{"job.training.rounds": 40}).job).training.rounds == 40


def test_what_a_site_does_otherwise_is_in_the_job_and_in_what_neighbours_read() -> None:
    release = feature("sites")
    job, membership = parse_job(release.job), Membership.from_json(release.membership)
    assert job.site_names == ("n1", "n2", "n4", "n5", "n6", "n7", "n8", "n9")
    assert (job.sites["n1"].learning_rate, job.sites["n1"].weight, job.sites["n1"].shard) == (0.05, 2.0, 3)
    assert (membership.sites["n1"].learning_rate, membership.sites["n1"].local_steps) == (0.05, 8)
    assert membership.sites["n2"].reach == job.sites["n2"].reach == "outbound"
    annotations = release.get("Service", "concord-n1-exchange")["metadata"]["annotations"]
    assert annotations["concord.dev/learning-rate"] == "0.05"
    assert annotations["concord.dev/local-steps"] == "8"
    assert release.get("Service", "concord-n2-exchange")["metadata"]["annotations"]["concord.dev/reach"] == "outbound"


def test_a_job_file_wins_over_the_sites_and_the_topology_of_the_values() -> None:
    release = feature("job-file")
    job = parse_job(release.job)
    assert job.name == "hospitals"
    assert job.site_names == ("North", "South", "West")
    assert job.topology_graph().edges == {("North", "South"), ("South", "West")}
    assert (job.training.learning_rate, job.training.rounds) == (1e-5, 200)
    assert job.exchange.max_update_bytes == 4194304
    assert job.sites["West"].weight == 2.0
    site = release.get("StatefulSet", "concord-north")["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "CONCORD_SITE", "value": "North"} in site["env"]


@pytest.mark.parametrize("example", ["digits", "digits-gossip", "chest-xray", "cifar10"])
def test_example_jobs_can_be_given_as_files(example: str) -> None:
    path = CHART.parents[1] / "examples" / f"{example}.yaml"
    given, job = parse_job(path.read_text()), parse_job(render("--set-file", f"job={path}").job)
    assert job.site_names == tuple(sorted(given.site_names))
    assert job.topology_graph().edges == given.topology_graph().edges
    same = {"task", "split", "algorithm", "training", "exchange", "evaluation", "checkpoint", "serving"}
    assert job.model_dump(include=same) == given.model_dump(include=same)


def test_a_job_file_names_sites_that_are_peers_here(tmp_path: object) -> None:
    job = "name: two\ntask: digits\nsites: [here, there]\n"
    release = with_values(job=job, peers={"there": {"url": "https://there.example.net:8443"}})
    assert release.names("StatefulSet") == {"concord-here"}
    assert parse_job(release.job).site_names == ("here", "there")


def test_peers_are_members_at_their_address() -> None:
    membership = Membership.from_json(feature("peers").membership)
    assert membership.sites["n1"].url == "https://concord-n1-exchange.federation.svc:8443"
    assert membership.sites["n2"].url == "https://n2.example.net:8443"
    assert (membership.sites["n4"].url, membership.sites["n4"].reach) == (None, "outbound")
    assert (membership.sites["n3"].learning_rate, membership.sites["n3"].local_steps) == (0.05, 8)


def test_without_tls_the_door_is_the_plain_port() -> None:
    for name in ("shared-secret", "insecure"):
        membership = Membership.from_json(feature(name).membership)
        assert membership.sites["n1"].url == "http://concord-n1-exchange.federation.svc:8080"


def test_a_list_of_sites_replaces_those_of_the_chart() -> None:
    release = with_values(sites=["a", {"name": "b", "weight": 3}])
    assert parse_job(release.job).sites["b"].weight == 3
    assert release.names("StatefulSet") == {"concord-a", "concord-b"}


def test_a_null_removes_a_site_and_an_empty_map_adds_one() -> None:
    release = render("--set", "sites.n3=null", "--set-json", "sites.n9={}")
    assert parse_job(release.job).site_names == ("n1", "n2", "n4", "n5", "n6", "n7", "n8", "n9")


def test_numbers_stay_whole_on_their_way() -> None:
    release = with_values(**{"job.exchange.max_update_bytes": 123456789, "siteDefaults.redis.maxMemory": 1073741824})
    assert yaml.safe_load(release.job)["exchange"]["max_update_bytes"] == 123456789
    (redis,) = release.get("StatefulSet", "concord-n1")["spec"]["template"]["spec"]["initContainers"]
    assert "1073741824" in redis["args"]


def test_a_number_that_helm_took_for_a_text_is_a_number() -> None:
    release = render(
        *("--set", "job.training.pace=0.5,job.training.learning_rate=1e-3,sites.n1.learning_rate=.05"),
        *("--set", "fleet.enabled=true,fleet.grace=0.5"),
    )
    job = parse_job(release.job)
    assert (job.training.pace, job.training.learning_rate) == (0.5, 1e-3)
    assert job.sites["n1"].learning_rate == Membership.from_json(release.membership).sites["n1"].learning_rate == 0.05
    assert {"name": "CONCORD_FLEET_GRACE", "value": "0.5"} in release.get("Deployment", "concord-fleet")["spec"][
        "template"
    ]["spec"]["containers"][0]["env"]


def test_privacy_is_said_as_in_a_job() -> None:
    values = {"job.privacy.noise_multiplier": 1.5, "job.privacy.target_delta": 0.001, "job.privacy.target_epsilon": 8}
    privacy = parse_job(with_values(**values).job).privacy
    assert privacy is not None
    assert (privacy.noise_multiplier, privacy.target_delta, privacy.target_epsilon) == (1.5, 0.001, 8.0)
    assert parse_job(feature("default").job).privacy is None
