"""What the fleet makes of a cluster's objects, of time, and of the document it finds."""

from __future__ import annotations

from typing import Any

import pytest

from concord.errors import JobError
from concord.fleet.document import go_on_from
from concord.fleet.plan import decide
from concord.fleet.presence import Presence
from concord.fleet.settings import FleetSettings, load_fleet_settings
from concord.fleet.sites import Sighting, read_sites
from concord.job.membership import Member, Membership
from concord.settings import Settings, load_settings

MADE = "2026-01-01T00:00:00Z"
MADE_AT = 1767225600.0


def service(name: str, site: str | None = None, **annotations: str) -> dict[str, Any]:
    notes = {"concord.dev/url": f"https://{name}:8443"}
    notes.update({f"concord.dev/{key.replace('_', '-')}": value for key, value in annotations.items()})
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": MADE,
            "labels": {"concord.dev/site": name if site is None else site},
            "annotations": notes,
        },
        "spec": {"selector": {"app": name}},
    }


def endpoints(service_name: str, *conditions: dict[str, bool | None]) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{service_name}-1", "labels": {"kubernetes.io/service-name": service_name}},
        "endpoints": [
            {"conditions": one, "zone": "west", "targetRef": {"kind": "Pod", "name": f"{service_name}-0"}}
            for one in conditions
        ],
    }


def pod(site: str, phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"name": f"{site.lower()}-0", "labels": {"concord.dev/site": site}},
        "spec": {"nodeName": "node-7"},
        "status": {"phase": phase},
    }


# --- sites -------------------------------------------------------------------------------------------------------


def test_a_service_with_the_labels_is_a_site() -> None:
    found, problems = read_sites(
        [service("n1", "N1", learning_rate="0.5", local_steps="3", reach="inbound")],
        [endpoints("n1", {"ready": True})],
        [pod("N1")],
    )
    assert problems == []
    assert found["N1"].member == Member(url="https://n1:8443", learning_rate=0.5, local_steps=3, reach="inbound")
    assert found["N1"].ready
    assert found["N1"].created == MADE_AT
    assert (found["N1"].pods[0].node, found["N1"].pods[0].zone) == ("node-7", "west")


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ([], False),
        ([{"ready": True}], True),
        ([{"ready": False}], False),
        ([{"ready": None}], True),
        ([{"ready": False}, {"ready": True}], True),
        ([{"ready": True, "serving": False}], False),
        ([{"ready": True, "serving": True, "terminating": True}], False),
    ],
)
def test_a_site_is_ready_while_one_endpoint_is(conditions: list[dict[str, bool | None]], ready: bool) -> None:
    found, _ = read_sites([service("n1")], [endpoints("n1", *conditions)], [])
    assert found["n1"].ready is ready


def test_a_site_outside_the_cluster_counts_as_ready() -> None:
    outside = service("n1")
    outside["spec"] = {"type": "ExternalName", "externalName": "far.example.org"}
    found, _ = read_sites([outside, service("n2")], [], [])
    assert found["n1"].ready
    assert not found["n2"].ready


@pytest.mark.parametrize(
    ("wrong", "note"),
    [
        (service("n1", "no site"), "the label concord.dev/site should be letters, digits and -"),
        (service("n1", ""), "the label concord.dev/site should be letters, digits and -"),
        (service("n1", url="n1:8443"), "the annotation concord.dev/url should be a URL"),
        (service("n1", reach="nowhere"), "the annotation concord.dev/reach unknown reach 'nowhere'"),
        (service("n1", learning_rate="fast"), "the annotation concord.dev/learning-rate is no number: 'fast'"),
        (service("n1", learning_rate="-1"), "the annotation concord.dev/learning-rate Input should be greater than 0"),
        (service("n1", local_steps="1.5"), "the annotation concord.dev/local-steps is no number: '1.5'"),
    ],
)
def test_a_service_that_is_no_site_is_told_and_hurts_nobody(wrong: dict[str, Any], note: str) -> None:
    found, problems = read_sites([wrong, service("n2")], [], [])
    assert list(found) == ["n2"]
    assert [problem.reason for problem in problems] == ["NotASite"]
    assert problems[0].note.startswith(f"Service n1: {note}")


def test_an_address_may_be_missing_only_where_nobody_calls() -> None:
    without = service("n1", reach="outbound")
    del without["metadata"]["annotations"]["concord.dev/url"]
    assert read_sites([without], [], [])[0]["n1"].member == Member(reach="outbound")
    without["metadata"]["annotations"]["concord.dev/reach"] = "both"
    assert "url is missing" in read_sites([without], [], [])[1][0].note


def test_of_two_services_with_one_site_the_older_counts() -> None:
    younger = service("aaa", "n1")
    younger["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    found, problems = read_sites([younger, service("n1")], [], [])
    assert found["n1"].service == "n1"
    assert [(problem.reason, problem.name) for problem in problems] == [("SameSite", "aaa")]


def test_a_site_without_its_service_is_there_while_a_pod_is() -> None:
    gone = service("n1")
    gone["metadata"]["deletionTimestamp"] = MADE
    found, _ = read_sites([gone], [endpoints("n1", {"ready": True})], [pod("n1"), pod("n2", "Succeeded")])
    assert list(found) == ["n1"]
    assert found["n1"].member is None
    assert not found["n1"].ready


# --- presence ----------------------------------------------------------------------------------------------------

ONE = Member(url="http://n1:1")


def seen(ready: bool, member: Member | None = ONE, created: float = 0.0) -> dict[str, Sighting]:
    return {"n1": Sighting("n1", member, ready, created)}


def test_away_within_the_grace_changes_nothing() -> None:
    presence = Presence(grace=600)
    members = {"n1": ONE}
    assert presence.update(seen(True), members, 1000).until is None
    away = presence.update(seen(False), members, 1100)
    assert (away.sites, away.until) == (members, 1700)
    assert presence.update(seen(False), members, 1699).sites == members
    assert presence.update(seen(True), members, 1699.5).until is None
    assert presence.update(seen(False), members, 1800).until == 2400


def test_away_for_longer_it_goes_and_comes_back_when_it_is_ready() -> None:
    presence = Presence(grace=600)
    presence.update(seen(False), {"n1": ONE}, 1000)
    assert presence.update(seen(False), {"n1": ONE}, 1600).sites == {}
    assert presence.update(seen(False), {}, 9000).sites == {}
    assert presence.update(seen(True), {}, 9001).sites == {"n1": ONE}


def test_a_new_leader_does_not_bring_back_who_was_taken_out() -> None:
    assert Presence(grace=600).update(seen(False, created=100), {}, 5000).sites == {}
    assert Presence(grace=600).update(seen(False, created=100), {"n1": ONE}, 5000).sites == {"n1": ONE}


def test_a_new_site_comes_before_it_is_ready() -> None:
    wanted = Presence(grace=600).update(seen(False, created=4990), {}, 5000)
    assert (wanted.sites, wanted.until) == ({"n1": ONE}, 5590)


def test_without_a_grace_only_who_is_deleted_goes() -> None:
    presence = Presence(grace=0)
    assert presence.update(seen(False), {}, 1e9).sites == {"n1": ONE}
    assert presence.update(seen(False), {"n1": ONE}, 2e9).until is None
    assert presence.update({}, {"n1": ONE}, 2e9).sites == {}


def test_with_only_pods_left_a_site_keeps_what_it_was_for_the_grace() -> None:
    presence = Presence(grace=600)
    assert presence.update(seen(False, member=None), {"n1": ONE}, 1000).sites == {"n1": ONE}
    assert presence.update(seen(False, member=None), {}, 1000).sites == {}


# --- the document ------------------------------------------------------------------------------------------------


def document(version: int, *sites: str) -> Membership:
    decision = decide(None, {site: Member(url=f"http://{site}:1") for site in sites}, 4, floor=version - 1)
    assert decision is not None
    return decision.membership


def test_a_document_that_is_newer_counts_whoever_wrote_it() -> None:
    newer = document(5, "n1", "n2")
    assert go_on_from(newer.to_json(), document(4, "n1")).membership == newer
    assert go_on_from(newer.to_json(), None).membership == newer
    assert not go_on_from(newer.to_json(), newer).rewrite


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nonsense", 4),
        ("", 4),
        ('{"version": 4, "sites"', 5),
        ('{"version": 9, "sites": {"n1": {}}, "edges": [{"sites": ["n1", "n7"]}]}', 10),
        (document(4, "n7", "n8").to_json(), 5),
        (document(2, "n7", "n8").to_json(), 5),
        (document(3, "n1", "n2").to_json(), 5),
        (None, 4),
    ],
)
def test_what_is_broken_or_set_back_is_put_right(text: str | None, version: int) -> None:
    good = document(4, "n1", "n2")
    found = go_on_from(text, good)
    assert found.rewrite
    assert found.problem
    assert found.membership is not None
    assert found.membership.version == version
    assert found.membership.sites == good.sites
    assert [edge.sites for edge in found.membership.edges] == [edge.sites for edge in good.edges]


def test_edges_that_sites_may_have_lost_to_a_slip_of_the_pen_come_back_newer() -> None:
    good = document(4, "n1", "n2", "n3")
    slip = good.model_copy(update={"edges": good.edges[:2]})
    found = go_on_from(slip.to_json(), good)
    assert found.membership is not None
    assert [edge.epoch for edge in found.membership.edges] == [4, 4, 5]
    assert go_on_from("nonsense", good).membership == good


def test_a_broken_document_without_a_good_one_still_says_which_version_to_exceed() -> None:
    found = go_on_from('{"version": 41, "sites": 0}', None)
    assert (found.membership, found.floor) == (None, 41)
    decision = decide(None, {"n1": ONE}, 4, found.floor)
    assert decision is not None
    assert decision.membership.version == 42


# --- settings ----------------------------------------------------------------------------------------------------


def test_flags_win_over_the_environment() -> None:
    environment = {
        "CONCORD_FLEET_FEDERATION": "digits",
        "CONCORD_FLEET_DEGREE": "6",
        "CONCORD_FLEET_GRACE": "0",
        "CONCORD_FLEET_NAMESPACE": "",
        "CONCORD_PORT": "9000",
        "CONCORD_REDIS_URL": "redis://of-no-interest",
    }
    settings = load_fleet_settings({"degree": "3", "identity": "me", "grace": None}, environment)
    assert settings == FleetSettings("digits", degree=3, grace=0.0, identity="me", port=9000)
    assert (settings.document, settings.lease_name) == ("digits-topology", "digits-fleet")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no federation is given: set --federation or CONCORD_FLEET_FEDERATION"),
        ({"CONCORD_FLEET_DEGREES": "3"}, "did you mean 'CONCORD_FLEET_DEGREE'?"),
        ({"CONCORD_FLEET_DEGREE": "1"}, "degree (CONCORD_FLEET_DEGREE): should be a whole number of at least 2"),
        ({"CONCORD_FLEET_GRACE": "-1"}, "grace (CONCORD_FLEET_GRACE): should be seconds, 0 or more"),
        ({"CONCORD_FLEET_FEDERATION": "A b"}, "should be lower-case letters"),
        ({"CONCORD_PORT": "x"}, "port (CONCORD_PORT): should be a port"),
        ({"CONCORD_FLEAT": "x"}, "unknown environment variable 'CONCORD_FLEAT'"),
    ],
)
def test_a_wrong_setting_names_its_variable(environment: dict[str, str], message: str) -> None:
    with pytest.raises(JobError) as caught:
        load_fleet_settings({}, environment)
    assert message in str(caught.value)


def test_a_site_does_not_mind_the_fleet_s_variables() -> None:
    assert load_settings({}, {"CONCORD_FLEET_DEGREE": "3"}) == Settings()
