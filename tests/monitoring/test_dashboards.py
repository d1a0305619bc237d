"""The dashboards: made from the code as it is, explained, and of metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from concord.telemetry.catalogue import GROUPS, Kind
from tools.alert_docs import alerts
from tools.dashboards.all import FOLDER, texts
from tools.render_manifests import RULES

BOARDS = {name: json.loads(text) for name, text in texts().items()}
SUFFIXES = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
KNOWN = {
    metric.name + suffix for group in GROUPS for metric in group.metrics for suffix in SUFFIXES.get(metric.kind, ("",))
}
NOT_SHOWN = {
    "concord_rounds_target": "most jobs have none",
    "concord_evaluated_timestamp_seconds": "the curve of the metric shows it",
    "concord_staleness_rounds": "seconds say more to who is on call",
    "concord_snapshot_version": "the version served is shown",
    "concord_checkpoint_bytes": "as large each time",
    "concord_checkpoints_total": "the age is shown",
    "concord_privacy_delta": "a constant of the job",
    "concord_updates_sent_total": "bytes and failures are shown",
    "concord_updates_received_total": "bytes and failures are shown",
    "concord_updates_known_total": "repeated news does no harm",
    "concord_delivery_last_seconds": "the histogram is shown",
    "concord_update_age_last_seconds": "the histogram is shown",
    "concord_delivery_attempts_total": "the failures are shown",
    "concord_mailbox_errors_total": "failures of Redis are shown",
    "concord_model_round": "the version is shown",
    "concord_fleet_has_leader": "the leaders are counted",
    "concord_fleet_failures": "problems are shown",
    "concord_fleet_topology_version": "that of the sites is shown",
    "concord_console_listeners": "no matter of those on call",
    "concord_console_sites": "no matter of those on call",
    "concord_console_sites_unreachable": "sites down are shown",
}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels but the rows."""
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", [])


EVERY = [
    pytest.param(panel, id=f"{name}: {panel['title']}") for name, board in BOARDS.items() for panel in panels(board)
]


def metrics(text: str) -> set[str]:
    """The names of Concord's metrics in an expression."""
    return set(re.findall(r"\bconcord_[a-z0-9_]+", text))


@pytest.mark.parametrize("name", BOARDS)
def test_the_dashboards_are_fresh(name: str) -> None:
    assert (FOLDER / name).read_text() == texts()[name], "run make dashboards"


def test_no_dashboard_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(BOARDS)


@pytest.mark.parametrize("panel", EVERY)
def test_every_panel_is_explained(panel: dict[str, Any]) -> None:
    given = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 12
    assert given["unit"]
    assert given["thresholds"]["steps"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


@pytest.mark.parametrize("panel", EVERY)
def test_every_query_is_of_metrics_that_there_are(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert metrics(target["expr"]) <= KNOWN
        assert "$namespace" in target["expr"]


def test_every_rule_is_of_metrics_that_there_are() -> None:
    for alert in alerts(RULES.read_text()):
        assert metrics(alert["expr"]) <= KNOWN, alert["alert"]
    assert metrics(RULES.read_text()) <= KNOWN


def test_what_is_told_is_shown_somewhere_or_left_out_for_a_reason() -> None:
    shown = {name for board in BOARDS.values() for name in metrics(json.dumps(board))}
    base = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in KNOWN else name for name in shown} | shown
    told = {metric.name for group in GROUPS for metric in group.metrics}
    histograms = {re.sub(r"_bucket$", "", name) for name in shown}
    assert told - base - histograms == set(NOT_SHOWN)


def test_the_first_thing_on_the_fleet_is_what_is_wrong_with_each_site_worst_first() -> None:
    first = next(panels(BOARDS["fleet.json"]))
    assert first["type"] == "table"
    assert first["gridPos"]["y"] <= 1
    (target,) = first["targets"]
    assert target["expr"].startswith("sort_desc(")
    assert "ALERTS" in target["expr"]


def test_links_lead_to_dashboards_and_runbooks() -> None:
    identifiers = {board["uid"] for board in BOARDS.values()}
    assert len(identifiers) == len(BOARDS)
    for board in BOARDS.values():
        assert [link["tags"] for link in board["links"]] == [["concord"]]
        assert "concord" in board["tags"]
        text = json.dumps(board)
        assert set(re.findall(r'"/d/([a-z-]+)\?', text)) <= identifiers
    fleet = json.dumps(BOARDS["fleet.json"])
    assert "/d/concord-site?" in fleet
    assert "docs/runbooks/${__data.fields.alert}.md" in fleet


@pytest.mark.parametrize("name", BOARDS)
def test_variables_are_asked_of_the_chosen_source(name: str) -> None:
    listed = {variable["name"]: variable for variable in BOARDS[name]["templating"]["list"]}
    assert listed["datasource"]["type"] == "datasource"
    assert listed["namespace"]["allValue"] == ".*"
    assert ("site" in listed) is (name != "fleet.json")
    for variable in listed.values():
        if variable["type"] == "query":
            assert variable["datasource"]["uid"] == "${datasource}"
            assert metrics(str(variable["query"])) <= KNOWN
