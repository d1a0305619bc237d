"""What real processes answer at /metrics: all that the catalogue says, within bounds, and nothing that is not so."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from concord.apps.local import HOST, LocalFleet
from concord.job import parse_job
from concord.mailbox.server import EmbeddedServer
from exposition import check, names_in, names_of, scrape, series_of
from waiting import wait_until

JOB = """\
name: metrics
task: digits
sites: 8
split: {kind: classes-per-site, classes: [2, 3]}
topology: ring
training: {rounds: 4000, pace: 0.2, local_steps: 8, learning_rate: 0.1}
checkpoint: {every: 0.5}
serving: {every: 0.5, shadow: 0.5}
"""
SELDOM = {
    "concord_privacy_epsilon",
    "concord_privacy_budget_epsilon",
    "concord_privacy_delta",
    "concord_privacy_complete",
    "concord_certificate_expiry_timestamp_seconds",
    "concord_redis_memory_limit_bytes",
    "concord_updates_refused_total",
    "concord_updates_rejected_total",
    "concord_connections_turned_away_total",
}
"""What a healthy site without privacy, certificates and a limit of its Redis does not have: see the unit tests."""
MOST_SERIES = 500


def has_all(url: str, process: str) -> bool:
    try:
        return names_in(scrape(url)) >= names_of(process) - SELDOM
    except httpx.HTTPError:
        return False


@pytest.fixture
def site(base_port: int, temporary: Path) -> Iterator[str]:
    """The URL of one of eight sites that has done a bit of everything."""
    with LocalFleet(parse_job(JOB), base_port) as fleet:
        url = fleet.urls["N3"]

        def busy() -> bool:
            fleet.supervise()
            try:
                httpx.post(f"{url}/v1/predict", json={"inputs": [0.0] * 64})
            except httpx.HTTPError:
                return False
            return has_all(url, "site")

        wait_until(busy, "every metric of a site")
        yield url


def test_a_site_tells_all_of_the_catalogue_in_few_series(site: str) -> None:
    text = scrape(site)
    assert names_in(text) <= names_of("site")
    check(text)
    series = series_of(text)
    assert len(series) <= MOST_SERIES
    neighbours = {labels for name, labels in series if name == "concord_edge_penalty"}
    assert neighbours == {(("neighbour", "N2"),), (("neighbour", "N4"),)}


def test_metrics_and_status_say_the_same(site: str) -> None:
    before = httpx.get(f"{site}/v1/status").json()
    text = scrape(site)
    after = status_since(site, time.time())
    series = series_of(text)
    for name, field in (("rounds", "round"), ("local_steps", "step"), ("samples", "samples")):
        value = series[f"concord_{name}_total", ()]
        assert before["progress"][field] <= value <= after["progress"][field]
    for neighbour, edge in before["exchange"]["edges"].items():
        received = series["concord_updates_received_total", (("neighbour", neighbour),)]
        assert edge["received"] <= received <= after["exchange"]["edges"][neighbour]["received"]


def status_since(site: str, moment: float) -> dict[str, Any]:
    """The first status reported after `moment`: it goes through the mailbox, and may come later than the metrics."""
    statuses: list[dict[str, Any]] = []

    def reported() -> bool:
        statuses.append(httpx.get(f"{site}/v1/status").json())
        return bool(statuses[-1]["reported_at"] >= moment)

    wait_until(reported, "a status from after the scrape")
    return statuses[-1]


def test_who_asks_for_openmetrics_gets_it(site: str) -> None:
    answer = httpx.get(f"{site}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_each_process_of_a_divided_site_tells_its_part(
    command: Callable[..., subprocess.Popen[str]], base_port: int, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("sites: 8", "sites: 2").replace("[2, 3]", "[5, 5]"))
    (tmp_path / "secret").write_text("a secret that all sites of the test share")
    (temporary / "redis").mkdir()
    with EmbeddedServer(temporary / "redis") as redis:
        places = {"exchange": base_port, "inference": base_port + 1, "trainer": base_port + 2}
        for name, port in places.items():
            peers = f"N2=http://{HOST}:{base_port + 9}"
            words = ["--site", "N1", "--secret-file", "secret", "--peers", peers, "--redis-url", redis.url]
            command(name, "--job", "job.yaml", *words, "--state-dir", "state", "--port", str(port))
        alone = {  # the neighbour never answers, and nobody asks for a prediction
            "concord_consensus_distance",
            "concord_staleness_rounds",
            "concord_staleness_seconds",
            "concord_neighbour_round",
            "concord_delivery_last_seconds",
            "concord_update_age_last_seconds",
            "concord_inference_requests_total",
            "concord_inference_seconds",
            "concord_redis_memory_bytes",
        }
        for name, port in places.items():
            url = f"http://{HOST}:{port}"

            def told(url: str = url, name: str = name) -> bool:
                try:
                    return names_in(scrape(url)) >= names_of(name) - SELDOM - alone
                except httpx.HTTPError:
                    return False

            wait_until(told, f"every metric of the {name}")
            text = scrape(url)
            assert names_in(text) <= names_of(name)
            check(text)
