"""Predictions: how many, how fast, how many fail, and which model answers."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import units

from tools.dashboards.parts import (
    HALF,
    HIGH_IS_BAD,
    LOW_IS_BAD,
    NAMESPACE,
    QUARTER,
    THIRD,
    Query,
    Steps,
    curve,
    frame,
    number,
    spread,
    variable,
)

_SITES = f'site=~"$site", {NAMESPACE}'
_RATE = "[$__rate_interval]"
_ERRORS = f'concord_inference_requests_total{{status=~"5..", {_SITES}}}'
_ALL = f"concord_inference_requests_total{{{_SITES}}}"
_FAILED: Steps = {None: "green", 0.001: "orange", 0.0144: "red"}
_SLOW: Steps = {None: "green", 0.25: "orange", 0.5: "red"}


def build() -> dashboard.Dashboard:
    """The dashboard `Concord / Inference`."""
    selector = f'concord_model_ready{{{NAMESPACE}, site!=""}}'
    sites = variable("site", "Site", selector, with_all=True, multi=True)
    board = frame(
        "inference", "Concord / Inference", "Predictions of one site or all: rate, errors, time, model.", sites
    )
    for title, panels in (
        ("Now", _now()),
        ("Requests", _requests()),
        ("Batches and queue", _batches()),
        ("Models", _models()),
    ):
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board


def _quantile(share: float, window: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate(concord_inference_seconds_bucket{{{_SITES}}}{window})))"


def _now() -> list[object]:
    return [
        number(
            "Sites that can answer",
            "Sites with a model.",
            Query(f"sum(max by (namespace, site) (concord_model_ready{{{_SITES}}}))"),
            steps=LOW_IS_BAD,
            span=QUARTER,
        ),
        number(
            "Requests",
            "Per second, over five minutes.",
            Query(f"sum(rate({_ALL}[5m]))"),
            unit=units.RequestsPerSecond,
            span=QUARTER,
            decimals=1,
        ),
        number(
            "Failed",
            "Share of requests that failed (status 5xx), over an hour. Red is where the budget of a month "
            "would be gone in two days.",
            Query(f"(sum(increase({_ERRORS}[1h])) or vector(0)) / (sum(increase({_ALL}[1h])) > 0)"),
            unit=units.PercentUnit,
            span=QUARTER,
            steps=_FAILED,
            decimals=2,
        ),
        number(
            "99 of 100 answered within",
            "Over five minutes.",
            Query(_quantile(0.99, "[5m]")),
            unit=units.Seconds,
            span=QUARTER,
            steps=_SLOW,
        ),
    ]


def _requests() -> list[object]:
    return [
        curve(
            "Requests by status",
            "Requests per second, by the status of their answers.",
            Query(f"sum by (status) (rate({_ALL}{_RATE}))", "{{status}}"),
            unit=units.RequestsPerSecond,
            stacked=True,
        ),
        curve(
            "Share that failed",
            "Status 5xx, by site.",
            Query(
                f"(sum by (namespace, site) (rate({_ERRORS}{_RATE})) or 0 * sum by (namespace, site) "
                f"(rate({_ALL}{_RATE}))) / (sum by (namespace, site) (rate({_ALL}{_RATE})) > 0)"
            ),
            unit=units.PercentUnit,
            steps=_FAILED,
        ),
        curve(
            "Time to answer",
            "Median, slowest twentieth, slowest hundredth, all sites and routes together.",
            *(Query(_quantile(q, _RATE), f"p{round(100 * q)}") for q in (0.5, 0.95, 0.99)),
            unit=units.Seconds,
            steps=_SLOW,
            span=THIRD,
        ),
        curve(
            "Slowest hundredth by site",
            "p99 of each site.",
            Query(
                "histogram_quantile(0.99, sum by (namespace, site, le) "
                f"(rate(concord_inference_seconds_bucket{{{_SITES}}}{_RATE})))"
            ),
            unit=units.Seconds,
            span=THIRD,
        ),
        curve(
            "Requests by route",
            "Requests per second, by route.",
            Query(f"sum by (route) (rate({_ALL}{_RATE}))", "{{route}}"),
            unit=units.RequestsPerSecond,
            span=THIRD,
        ),
        spread(
            "Spread of time to answer",
            "How many requests took how long.",
            Query(f"sum by (le) (increase(concord_inference_seconds_bucket{{{_SITES}}}{_RATE}))", "{{le}}"),
        ),
        curve(
            "Rows",
            "Rows answered per second, by site.",
            Query(f"sum by (namespace, site) (rate(concord_inference_rows_total{{{_SITES}}}{_RATE}))"),
        ),
    ]


def _batches() -> list[object]:
    def per_batch(metric: str) -> str:
        by = "sum by (namespace, site)"
        batches = f"{by} (rate(concord_inference_batches_total{{{_SITES}}}{_RATE}))"
        return f"{by} (rate({metric}{{{_SITES}}}{_RATE})) / ({batches} > 0)"

    return [
        curve(
            "Batch size",
            "Rows, and requests, in one batch.",
            Query(per_batch("concord_inference_batched_rows_total"), "{{site}} rows"),
            Query(per_batch("concord_inference_batched_requests_total"), "{{site}} requests"),
            span=THIRD,
        ),
        curve(
            "Queue",
            "Rows that wait, and how many may.",
            Query(f"max by (namespace, site) (concord_inference_queue_rows{{{_SITES}}})"),
            Query(f"max(concord_inference_queue_limit_rows{{{_SITES}}})", "limit"),
            span=THIRD,
        ),
        curve(
            "Turned away and abandoned",
            "Requests per second that found no room or waited too long, and those whose callers had gone.",
            Query(
                f"sum by (namespace, site) (rate(concord_inference_queue_refused_total{{{_SITES}}}{_RATE}))",
                "{{site}} turned away",
            ),
            Query(
                f"sum by (namespace, site) (rate(concord_inference_abandoned_total{{{_SITES}}}{_RATE}))",
                "{{site}} abandoned",
            ),
            unit=units.RequestsPerSecond,
            span=THIRD,
        ),
    ]


def _models() -> list[object]:
    return [
        curve(
            "Version served",
            "The version that answers, by site.",
            Query(f"max by (namespace, site) (concord_model_version{{{_SITES}}})"),
            span=THIRD,
        ),
        curve(
            "Age of the model",
            "Since the version that answers was published.",
            Query(f"time() - max by (namespace, site) (concord_model_created_timestamp_seconds{{{_SITES}}})"),
            unit=units.Seconds,
            span=THIRD,
            steps={None: "green", 900: "red"},
        ),
        curve(
            "Swaps",
            "Models put into service per second.",
            Query(f"sum by (namespace, site) (rate(concord_model_swaps_total{{{_SITES}}}{_RATE}))"),
            unit=units.RequestsPerSecond,
            span=THIRD,
        ),
        curve(
            "Held back and refused",
            "Models in 30 minutes that the gate held back, or that could not be loaded.",
            Query(
                f"sum by (namespace, site) (increase(concord_model_held_back_total{{{_SITES}}}[30m]))",
                "{{site}} held back",
            ),
            Query(
                f"sum by (namespace, site) (increase(concord_model_refused_total{{{_SITES}}}[30m]))", "{{site}} refused"
            ),
            span=HALF,
            steps=HIGH_IS_BAD,
        ),
        curve(
            "Follows",
            "1 if newer models are served as they come, 0 if somebody holds one.",
            Query(f"min by (namespace, site) (concord_model_following{{{_SITES}}})"),
            span=QUARTER,
        ),
        curve(
            "Shadow",
            "Share of rows for which a candidate named another class; with `serving.shadow` only.",
            Query(
                f"sum by (namespace, site) (rate(concord_shadow_disagreements_total{{{_SITES}}}{_RATE}))\n"
                f"  / (sum by (namespace, site) (rate(concord_shadow_requests_total{{{_SITES}}}{_RATE})) > 0)"
            ),
            unit=units.PercentUnit,
            span=QUARTER,
        ),
    ]
