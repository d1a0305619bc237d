"""A real Prometheus reads eight real sites: every query of every dashboard and every rule is asked of it.

What healthy sites cannot tell (a certificate, a refusal, a fleet process) is told by a made-up process beside them, so
that no query is left of which nobody has seen data.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from concord.apps.local import LocalFleet
from concord.job import parse_job
from prometheus import CONFIG, MADE_UP, REAL, Prometheus, prometheus, tells_everything
from tools.dashboards.all import FOLDER
from tools.render_manifests import RULES

JOB = """\
name: watched
task: digits
sites: 8
split: {kind: classes-per-site, classes: [2, 3]}
topology: ring
training: {rounds: 4000, pace: 0.5, local_steps: 4, learning_rate: 0.1}
checkpoint: {every: 1}
serving: {every: 1}
"""
PATIENCE = 60.0
FORGOTTEN = 150.0
"""Seconds until a failed command to a Redis, as on a busy machine, is forgotten: its rule looks back two minutes."""
NOT_TOLD = {
    "concord_updates_refused_total": "no update is refused where all have one job",
    "concord_updates_rejected_total": "no update is refused where all have one job",
    "concord_connections_turned_away_total": "there is room for all",
    "concord_privacy_": "the job has no privacy",
    "concord_certificate_": "sites on one machine meet without certificates",
    "concord_redis_memory_limit_bytes": "the Redis of `concord up` has no limit",
    "concord_shadow_": "nothing is compared while every new model is served as it comes",
    "concord_fleet_": "`concord fleet` runs in a cluster",
}
"""Beginnings of what eight healthy sites on one machine do not tell, and why."""


@dataclass(frozen=True)
class Asked:
    """A query of a panel."""

    where: str
    expr: str

    def text(self, namespace: str, site: str) -> str:
        """As Grafana would send it."""
        chosen = {"$namespace": namespace, "$__rate_interval": "30s", "$site": site}
        return re.sub(r"\$(namespace|__rate_interval|site)\b", lambda match: chosen[match[0]], self.expr)

    @property
    def may_be_empty(self) -> bool:
        """Whether healthy sites have nothing to say to it."""
        return any(name in self.expr for name in NOT_TOLD)


def _panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            yield path.stem, panel


QUERIES = [
    Asked(f"{board}: {panel['title']}", target["expr"])
    for board, panel in _panels()
    for target in panel.get("targets", [])
]


@dataclass
class Watched:
    """The fleet and who watches it."""

    fleet: LocalFleet
    prometheus: Prometheus
    ready: set[str] = field(default_factory=set)

    def use(self) -> None:
        """Keep the fleet going, and ask each site for a prediction once it has said that it is ready."""
        self.fleet.supervise()
        for url in self.fleet.urls.values():
            try:
                if url in self.ready:
                    httpx.post(f"{url}/v1/predict", json={"inputs": [0.0] * 64})
                elif httpx.get(f"{url}/readyz").status_code == 200:
                    self.ready.add(url)
            except httpx.TransportError:  # a site that has not started, or has no time at the moment
                continue

    def until(self, missing: Any, what: str, patience: float = PATIENCE) -> None:
        """Use the fleet until nothing is missing; AssertionError if what is missing did not become less for long."""
        least, deadline = math.inf, 0.0
        while found := missing():
            if len(found) < least:
                least, deadline = len(found), time.monotonic() + patience
            assert time.monotonic() < deadline, f"{what}: {found}"
            self.use()


@pytest.fixture
def watched(base_port: int, temporary: Path, tmp_path: Path) -> Iterator[Watched]:
    with (
        LocalFleet(parse_job(JOB), base_port) as fleet,
        tells_everything() as made_up,
        prometheus(tmp_path, fleet.urls, made_up) as server,
    ):
        yield Watched(fleet, server)


@pytest.mark.timeout(600)  # eight sites start on few processors
def test_every_query_and_every_rule_has_an_answer(watched: Watched) -> None:
    _sites_are_read(watched)
    _dashboards_show_the_sites(watched)
    _what_sites_do_not_tell_is_shown_too(watched)
    _rules_are_well_and_silent(watched)
    _variables_have_values(watched)
    _a_site_that_hangs_comes_first(watched)


def _sites_are_read(watched: Watched) -> None:
    def down() -> set[str]:
        up = watched.prometheus.query(f'up{{job="concord", namespace="{REAL}"}} == 1')
        return set(watched.fleet.urls) - {one["metric"]["site"] for one in up}

    watched.until(down, "sites that are not read")


def _dashboards_show_the_sites(watched: Watched) -> None:
    wanted = [one for one in QUERIES if not one.may_be_empty]
    assert len(wanted) > 70
    _all_answered(watched, wanted, REAL)


def _what_sites_do_not_tell_is_shown_too(watched: Watched) -> None:
    _all_answered(watched, [one for one in QUERIES if one.may_be_empty], MADE_UP)


def _all_answered(watched: Watched, wanted: list[Asked], namespace: str) -> None:
    """Ask until every query has had data."""
    left = list(wanted)
    assert left

    def empty() -> list[Asked]:
        left[:] = [one for one in left if not watched.prometheus.query(one.text(namespace, _site(one, namespace)))]
        return left

    watched.until(empty, f"queries without data of {namespace} sites")


def _site(asked: Asked, namespace: str) -> str:
    """What is chosen in the dashboard's list of sites."""
    if asked.where.startswith("inference"):
        return ".*"
    return "N3" if namespace == REAL else MADE_UP


def _rules_are_well_and_silent(watched: Watched) -> None:
    told = yaml.safe_load(RULES.read_text())["groups"]

    def not_evaluated() -> list[str]:
        groups = watched.prometheus.ask("rules")["groups"]
        assert {rule["name"] for group in groups for rule in group["rules"]} == {
            rule.get("alert") or rule["record"] for group in told for rule in group["rules"]
        }
        assert [rule for group in groups for rule in group["rules"] if rule.get("lastError")] == []
        return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"]

    watched.until(not_evaluated, "rules that were not evaluated")
    for group in told:
        for rule in group["rules"]:
            for name in set(re.findall(r"\bconcord_\w+", rule["expr"])):
                made_up = any(name.startswith(beginning) for beginning in NOT_TOLD)
                namespace = MADE_UP if made_up else REAL
                assert watched.prometheus.query(f'{name}{{namespace="{namespace}"}}'), f"{rule}: {name}"
            if "record" in rule:
                answer = watched.prometheus.query(f'{rule["record"]}{{namespace=~"{REAL}|{MADE_UP}"}}')
                assert answer, rule["record"]
    firing = watched.prometheus.query(f'ALERTS{{namespace="{REAL}", alertstate="firing"}}')
    assert firing == []


def _variables_have_values(watched: Watched) -> None:
    for path in FOLDER.glob("*.json"):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                asked_for = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
                assert asked_for is not None, variable["query"]
                selector, label = asked_for.groups()
                asked = {"match[]": selector.replace("$namespace", REAL)}
                values = watched.prometheus.ask(f"label/{label}/values", **asked)
                assert set(values) >= ({REAL} if label == "namespace" else set(watched.fleet.urls))


def _a_site_that_hangs_comes_first(watched: Watched) -> None:
    """As the first panel of the first dashboard shows it, though the alert is only about to fire."""
    first = next(one for one in QUERIES if one.where.startswith("fleet: What is wrong"))
    expr = first.text(REAL, "")
    assert {one["metric"]["site"] for one in watched.prometheus.query(expr)} == set(watched.fleet.urls)

    def critical() -> list[Any]:
        return [one for one in watched.prometheus.query(expr) if float(one["value"][1]) >= 2]

    watched.until(critical, "as bad as a site that hangs, before one does", FORGOTTEN)
    process = watched.fleet.pids("N5")["site"]
    assert process is not None
    os.kill(process, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            worst, *_ = watched.prometheus.query(expr)
            if worst["metric"].get("alertname") == "ConcordSiteDown":
                break
            assert time.monotonic() < deadline, worst
    finally:
        os.kill(process, signal.SIGCONT)
    assert worst["metric"]["site"] == "N5"
    assert float(worst["value"][1]) == 2


def test_the_example_for_sites_of_up_is_what_up_does() -> None:
    (job,) = yaml.safe_load(CONFIG.read_text())["scrape_configs"]
    targets = {one["labels"]["site"]: one["targets"] for one in job["static_configs"]}
    assert targets == {f"N{place + 1}": [f"127.0.0.1:{8100 + place}"] for place in range(8)}
