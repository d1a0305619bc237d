"""Readings of what a healthy site does not have, and how they are told."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import pytest

from concord.errors import RefusalReason
from concord.histogram import Histogram
from concord.learning.privacy import PrivacyStatus
from concord.redislink import LinkState
from concord.site.counters import TrainerCounters
from concord.site.status import EdgeStatus, Phase, Progress, SiteStatus
from concord.telemetry.catalogue import METRICS, Kind
from concord.telemetry.exchange import exchange_source
from concord.telemetry.redis import redis_source
from concord.telemetry.registry import Reading, Source, Telemetry
from concord.telemetry.trainer import trainer_source
from concord.transport.traffic import ExchangeState
from exposition import check, series_of
from tools.metric_docs import PAGE, page

EDGE = EdgeStatus(
    epoch=2,
    penalty=0.5,
    sent=7,
    received=6,
    neighbour_round=11,
    staleness_rounds=1,
    staleness_seconds=2.0,
    consensus_distance=0.25,
)
PROGRESS = Progress(
    phase=Phase.TRAINING,
    incarnation=3,
    round=12,
    step=96,
    samples=3072,
    loss=0.5,
    metrics={"accuracy": 0.75},
    bad_steps=1,
    rollbacks=0,
    version=4,
    edges={"N2": EDGE},
)
STATUS = SiteStatus(
    site="N1",
    federation="f",
    task="digits",
    algorithm="ecl-isvr",
    metric="accuracy",
    rounds=None,
    classes={},
    parameters=10,
    reported_at=1000.0,
    started_at=900.0,
    steps_per_second=40.0,
    progress=PROGRESS,
)
SPENT = PrivacyStatus(
    epsilon=1.5,
    delta=1e-5,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    sample_rate=0.1,
    steps=96,
    target_epsilon=8.0,
    complete=True,
)


MOST_SERIES = 500
LONGEST_SCRAPE = 0.010
"""Seconds of a processor: those of the clock are the machine's."""


class Desk:
    """What a source reads of a trainer."""

    def __init__(self, reported: SiteStatus | None) -> None:
        self.reported = reported
        self.counters = TrainerCounters(turned_at=999.0)


def told(*sources: Source) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text, _ = Telemetry("trainer", *sources).expose("")
    check(text.decode())
    return series_of(text.decode())


def of_trainer(status: SiteStatus | None, now: float = 1000.0) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return told(trainer_source(Desk(status), lambda: 5, lambda: now))


def names(series: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> set[str]:
    return {name for name, _ in series}


def test_an_edge_grows_stale_while_its_trainer_says_nothing() -> None:
    edge = (("neighbour", "N2"),)
    assert of_trainer(STATUS)["concord_staleness_seconds", edge] == 2.0
    assert of_trainer(STATUS, now=1060.0)["concord_staleness_seconds", edge] == 62.0
    assert of_trainer(STATUS, now=1060.0)["concord_staleness_rounds", edge] == 1.0


def test_what_is_not_known_is_left_out() -> None:
    fresh = replace(EDGE, neighbour_round=None, staleness_rounds=None, staleness_seconds=None, consensus_distance=None)
    status = replace(STATUS, progress=replace(PROGRESS, loss=None, edges={"N2": fresh}))
    missing = {"concord_loss", "concord_staleness_seconds", "concord_consensus_distance", "concord_rounds_target"}
    assert not missing & names(of_trainer(status))
    assert "concord_rounds_total" not in names(of_trainer(None))
    assert of_trainer(replace(STATUS, rounds=40))["concord_rounds_target", ()] == 40


def test_privacy_is_told_and_then_no_loss() -> None:
    series = of_trainer(replace(STATUS, privacy=SPENT))
    assert series["concord_privacy_epsilon", ()] == 1.5
    assert series["concord_privacy_budget_epsilon", ()] == 8.0
    assert series["concord_privacy_delta", ()] == 1e-5
    assert series["concord_privacy_complete", ()] == 1
    assert "concord_loss" not in names(series)
    beyond = of_trainer(replace(STATUS, privacy=replace(SPENT, epsilon=None, target_epsilon=None)))
    assert beyond["concord_privacy_epsilon", ()] == math.inf
    assert "concord_privacy_budget_epsilon" not in names(beyond)


def test_reasons_that_a_neighbour_makes_up_are_one_series() -> None:
    state = ExchangeState("N1")
    edge = state.edges["N2"]
    edge.refused[RefusalReason.NOT_FINITE] = 3
    edge.rejected.update({"epoch": 2, "made up": 1, "another": 4})
    state.turned_away["idle"] = 6
    series = told(exchange_source(state, None))
    assert series["concord_updates_refused_total", (("neighbour", "N2"), ("reason", "not_finite"))] == 3
    rejected = {labels[1][1]: value for (name, labels), value in series.items() if name.endswith("rejected_total")}
    assert rejected == {"epoch": 2, "other": 5}
    assert series["concord_connections_turned_away_total", (("reason", "idle"),)] == 6


def test_a_scrape_takes_little_of_a_processor() -> None:
    state = ExchangeState("N1")
    names = [f"N{number}" for number in range(2, 10)]
    for name in names:
        state.edges[name].delivery.observe(0.1)
        state.edges[name].age.observe(0.1)
        state.edges[name].refused.update(dict.fromkeys(RefusalReason, 1))
    status = replace(STATUS, progress=replace(PROGRESS, edges=dict.fromkeys(names, EDGE)))
    sources = trainer_source(Desk(status), lambda: 5, lambda: 1000.0), exchange_source(state, None)
    telemetry = Telemetry("site", *sources)
    took = []
    for _ in range(50):
        began = time.thread_time()
        text, _ = telemetry.expose("")
        took.append(time.thread_time() - began)
    assert 300 <= len(series_of(text.decode())) <= MOST_SERIES
    assert median(took) <= LONGEST_SCRAPE


def test_edges_and_links_are_summed() -> None:
    state = ExchangeState("N1")
    for neighbour, seconds in (("N2", 0.002), ("N3", 0.2)):
        state.edges[neighbour].delivery.observe(seconds)
    one, other = LinkState(), LinkState(failures=2)
    one.seconds.observe(0.0004)
    series = told(exchange_source(state, None), redis_source(one, other))
    assert series["concord_delivery_seconds_count", ()] == 2
    assert series["concord_delivery_seconds_sum", ()] == pytest.approx(0.202)
    assert series["concord_delivery_last_seconds", (("neighbour", "N3"),)] == 0.2
    assert series["concord_redis_seconds_bucket", (("le", "0.0005"),)] == 1
    assert series["concord_redis_failures_total", ()] == 2


def test_buckets_are_cumulative() -> None:
    histogram = Histogram((0.5, 1.0))
    for value in (0.1, 0.5, 0.7, 9.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.last, histogram.count) == ([2, 1, 1], 9.0, 4)

    def read() -> Iterator[Reading]:
        yield Reading("concord_step_seconds", histogram)

    series = told(read)
    buckets = [series["concord_step_seconds_bucket", (("le", bound),)] for bound in ("0.5", "1.0", "+Inf")]
    assert buckets == [2, 3, 4]


def test_names_follow_the_rules() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("concord_")
        assert name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.help.endswith(".")
        assert "site" not in metric.labels


def test_the_page_is_that_of_the_catalogue() -> None:
    assert PAGE.read_text() == page(), "run make metric-docs"
