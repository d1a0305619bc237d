"""One site: does it get on, what of its neighbours does it know, can it keep what it has learned."""

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

_SITE = f'site="$site", {NAMESPACE}'
_RATE = "[$__rate_interval]"
_STALE: Steps = {None: "green", 60: "orange", 120: "red"}


def build() -> dashboard.Dashboard:
    """The dashboard `Concord / Site`."""
    sites = variable("site", "Site", f'concord_build_info{{{NAMESPACE}, site!=""}}')
    board = frame("site", "Concord / Site", "One site: progress, edges, checkpoints, Redis, memory, privacy.", sites)
    for title, panels in (
        ("Now", _now()),
        ("Progress", _progress()),
        ("Time", _time()),
        ("Edges", _edges()),
        ("State", _state()),
        ("Process", _process()),
        ("Privacy, where the job asks for it", _privacy()),
    ):
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board


def _now() -> list[object]:
    return [
        number(
            "Up",
            "Whether all processes of the site answer.",
            Query(f'min(up{{job="concord", {_SITE}}})'),
            steps=LOW_IS_BAD,
        ),
        number(
            "Phase",
            "Where the site stands in its job.",
            Query(f"max by (phase) (concord_phase{{{_SITE}}}) == 1", "{{phase}}"),
            text=True,
        ),
        number("Round", "Rounds that the site has done.", Query(f"max(concord_rounds_total{{{_SITE}}})")),
        number(
            "The loop turned",
            "How long ago the trainer's loop last turned.",
            Query(f"time() - max(concord_trainer_turned_timestamp_seconds{{{_SITE}}})"),
            unit=units.Seconds,
            steps={None: "green", 30: "orange", 60: "red"},
            decimals=0,
        ),
        number(
            "Oldest news",
            "Age of the news from the neighbour that has been silent longest.",
            Query(f"max(concord_staleness_seconds{{{_SITE}}})"),
            unit=units.Seconds,
            steps=_STALE,
            decimals=0,
        ),
        number(
            "Checkpoint",
            "How long ago the site saved its state.",
            Query(f"time() - max(concord_checkpoint_timestamp_seconds{{{_SITE}}})"),
            unit=units.Seconds,
            steps={None: "green", 900: "orange"},
            decimals=0,
        ),
    ]


def _progress() -> list[object]:
    return [
        curve(
            "Metrics",
            "What the last evaluations said.",
            Query(f"max by (metric) (concord_metric_value{{{_SITE}}})", "{{metric}}"),
            span=THIRD,
            least=None,
        ),
        curve(
            "Loss",
            "Training loss. A site with privacy tells none.",
            Query(f"max(concord_loss{{{_SITE}}})", "loss"),
            span=THIRD,
            least=None,
        ),
        curve(
            "Steps and samples",
            "Local steps and samples per second.",
            Query(f"sum(rate(concord_local_steps_total{{{_SITE}}}{_RATE}))", "steps"),
            Query(f"sum(rate(concord_samples_total{{{_SITE}}}{_RATE}))", "samples"),
            span=THIRD,
        ),
        curve(
            "Bad steps and rollbacks",
            "Steps left out because their numbers were not finite, and returns to a "
            "checkpoint, in the last 15 minutes.",
            Query(f"sum(increase(concord_bad_steps_total{{{_SITE}}}[15m]))", "bad steps"),
            Query(f"sum(increase(concord_rollbacks_total{{{_SITE}}}[15m]))", "rollbacks"),
            steps=HIGH_IS_BAD,
        ),
        curve(
            "Lives",
            "How often the trainer has started; a step is a restart.",
            Query(f"max(concord_incarnation{{{_SITE}}})", "incarnation"),
        ),
    ]


def _time() -> list[object]:
    def quantiles(metric: str) -> list[Query]:
        buckets = f"sum by (le) (rate({metric}_bucket{{{_SITE}}}{_RATE}))"
        return [Query(f"histogram_quantile({q}, {buckets})", f"p{round(100 * q)}") for q in (0.5, 0.95, 0.99)]

    return [
        curve(
            "Seconds of a step",
            "One local step, from the gradient to its end.",
            *quantiles("concord_step_seconds"),
            unit=units.Seconds,
            span=THIRD,
        ),
        curve(
            "Seconds of a round",
            "One round, rests for the pace of the job included.",
            *quantiles("concord_round_seconds"),
            unit=units.Seconds,
            span=THIRD,
        ),
        curve(
            "Where the time goes",
            "Share of time that the trainer rests for the pace, and that it stands still "
            "because of its mailbox; the latter should be next to nothing.",
            Query(f"sum(rate(concord_rest_seconds_total{{{_SITE}}}{_RATE}))", "rests"),
            Query(f"sum(rate(concord_mailbox_wait_seconds_total{{{_SITE}}}{_RATE}))", "waits for the mailbox"),
            unit=units.PercentUnit,
            span=THIRD,
        ),
    ]


def _edges() -> list[object]:
    each = "{{neighbour}}"
    return [
        curve(
            "Staleness",
            "Age of the news from each neighbour.",
            Query(f"max by (neighbour) (concord_staleness_seconds{{{_SITE}}})", each),
            unit=units.Seconds,
            span=THIRD,
            steps=_STALE,
        ),
        curve(
            "Consensus distance",
            "How far the site's model is from each neighbour's, as a share of its own size.",
            Query(f"max by (neighbour) (concord_consensus_distance{{{_SITE}}})", each),
            unit=units.PercentUnit,
            span=THIRD,
        ),
        curve(
            "Rounds ahead of neighbours",
            "This site's round less the one of the neighbour's newest news; below zero the neighbour is ahead.",
            Query(
                f"scalar(max(concord_rounds_total{{{_SITE}}})) - max by (neighbour) "
                f"(concord_neighbour_round{{{_SITE}}})",
                each,
            ),
            span=THIRD,
            least=None,
        ),
        curve(
            "Updates",
            "Per second: laid out for each neighbour, and used of what came.",
            Query(f"sum by (neighbour) (rate(concord_updates_published_total{{{_SITE}}}{_RATE}))", "to {{neighbour}}"),
            Query(f"sum by (neighbour) (rate(concord_updates_absorbed_total{{{_SITE}}}{_RATE}))", "from {{neighbour}}"),
            unit=units.RequestsPerSecond,
        ),
        curve(
            "Bytes",
            "Of updates, per second.",
            Query(f"sum by (neighbour) (rate(concord_bytes_sent_total{{{_SITE}}}{_RATE}))", "to {{neighbour}}"),
            Query(f"sum by (neighbour) (rate(concord_bytes_received_total{{{_SITE}}}{_RATE}))", "from {{neighbour}}"),
            unit=units.BytesPerSecondIEC,
        ),
        curve(
            "Refused and rejected",
            "Updates per second that this site did not let in (refused), or a neighbour did not (rejected), by reason.",
            Query(
                f"sum by (neighbour, reason) (rate(concord_updates_refused_total{{{_SITE}}}{_RATE}))",
                "refused: {{neighbour}} {{reason}}",
            ),
            Query(
                f"sum by (neighbour, reason) (rate(concord_updates_rejected_total{{{_SITE}}}{_RATE}))",
                "rejected: {{neighbour}} {{reason}}",
            ),
            unit=units.RequestsPerSecond,
        ),
        curve(
            "Failed deliveries",
            "Requests to each neighbour per second that failed or were refused.",
            Query(f"sum by (neighbour) (rate(concord_delivery_failures_total{{{_SITE}}}{_RATE}))", each),
            unit=units.RequestsPerSecond,
        ),
        spread(
            "Age of updates when stored here",
            "By both clocks: from sending there to storing here.",
            Query(f"sum by (le) (increase(concord_update_age_seconds_bucket{{{_SITE}}}{_RATE}))", "{{le}}"),
        ),
        curve(
            "Strength of agreement",
            "Penalty of each edge.",
            Query(f"max by (neighbour) (concord_edge_penalty{{{_SITE}}})", each),
        ),
    ]


def _state() -> list[object]:
    return [
        curve(
            "Checkpoint age",
            "Time since the site saved its state.",
            Query(f"time() - max(concord_checkpoint_timestamp_seconds{{{_SITE}}})", "age"),
            unit=units.Seconds,
            span=THIRD,
            steps={None: "green", 900: "red"},
        ),
        curve(
            "Checkpoint",
            "How long writing the last one took.",
            Query(f"max(concord_checkpoint_write_seconds{{{_SITE}}})", "to write"),
            unit=units.Seconds,
            span=THIRD,
        ),
        curve(
            "Checkpoints that failed",
            "In the last 15 minutes.",
            Query(f"sum(increase(concord_checkpoint_failures_total{{{_SITE}}}[15m]))", "failed"),
            span=THIRD,
            steps=HIGH_IS_BAD,
        ),
        curve(
            "Redis memory",
            "What the site's Redis holds, and what it may hold.",
            Query(f"max(concord_redis_memory_bytes{{{_SITE}}})", "used"),
            Query(f"max(concord_redis_memory_limit_bytes{{{_SITE}}})", "limit"),
            unit=units.BytesIEC,
            span=THIRD,
        ),
        curve(
            "Redis commands",
            "How long a command takes: the median and the slowest hundredth.",
            *(
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate(concord_redis_seconds_bucket{{{_SITE}}}{_RATE})))", name
                )
                for q, name in ((0.5, "p50"), (0.99, "p99"))
            ),
            unit=units.Seconds,
            span=THIRD,
        ),
        curve(
            "Redis failures",
            "Commands per second that failed, and how often the mailbox had lost its content.",
            Query(f"sum(rate(concord_redis_failures_total{{{_SITE}}}{_RATE}))", "failures"),
            Query(f"sum(rate(concord_mailbox_emptied_total{{{_SITE}}}{_RATE}))", "emptied"),
            unit=units.RequestsPerSecond,
            span=THIRD,
        ),
    ]


def _process() -> list[object]:
    which = f'{{job="concord", {_SITE}}}'
    return [
        curve(
            "Memory",
            "Resident memory of each process.",
            Query(f"process_resident_memory_bytes{which}", "{{instance}}"),
            unit=units.BytesIEC,
            span=THIRD,
        ),
        curve(
            "Processors",
            "Processors in use by each process.",
            Query(f"rate(process_cpu_seconds_total{which}{_RATE})", "{{instance}}"),
            span=THIRD,
        ),
        curve(
            "Open files",
            "Files and sockets of each process, and the most it may have.",
            Query(f"process_open_fds{which}", "{{instance}}"),
            Query(f"process_max_fds{which}", "most of {{instance}}"),
            span=THIRD,
            logarithmic=True,
        ),
        number(
            "Certificate",
            "Time until the site's certificate ends; none without mutual TLS.",
            Query(f"min(concord_certificate_expiry_timestamp_seconds{{{_SITE}}}) - time()"),
            unit=units.Seconds,
            span=QUARTER,
            steps={None: "red", 172800: "orange", 1209600: "green"},
        ),
        number(
            "Version",
            "Version of Concord that the site runs.",
            Query(f"max by (version) (concord_build_info{{{_SITE}}})", "{{version}}"),
            span=QUARTER,
            text=True,
        ),
        number(
            "Algorithm",
            "How the site comes to agree with others.",
            Query(f"max by (algorithm) (concord_site_info{{{_SITE}}})", "{{algorithm}}"),
            span=QUARTER,
            text=True,
        ),
        number("Parameters", "Numbers in the model.", Query(f"max(concord_site_parameters{{{_SITE}}})"), span=QUARTER),
    ]


def _privacy() -> list[object]:
    return [
        curve(
            "Privacy spent",
            "Epsilon at the delta of the job, and the budget, if there is one.",
            Query(f"max(concord_privacy_epsilon{{{_SITE}}})", "spent"),
            Query(f"max(concord_privacy_budget_epsilon{{{_SITE}}})", "budget"),
            span=HALF,
        ),
        number(
            "Share of the budget",
            "Epsilon spent of what may be spent.",
            Query(f"max(concord_privacy_epsilon{{{_SITE}}}) / max(concord_privacy_budget_epsilon{{{_SITE}}})"),
            unit=units.PercentUnit,
            span=QUARTER,
            steps={None: "green", 0.9: "orange", 1: "red"},
        ),
        number(
            "Count is complete",
            "0 if an earlier life was not counted, and epsilon is too low.",
            Query(f"min(concord_privacy_complete{{{_SITE}}})"),
            span=QUARTER,
            steps=LOW_IS_BAD,
        ),
    ]
