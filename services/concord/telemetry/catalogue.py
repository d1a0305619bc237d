"""Every metric of every process: the one place that names them. docs/metrics.md is made from it.

Base units, as Prometheus asks for; the label `site` is added by whoever scrapes. A series of an edge, a model or a
budget that is not there is left out, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The types of the exposition format that are used."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` as a query has it, counters with `_total`; `labels` are those the process itself gives."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics that are read together. `processes` are those that have them; `site` is all three of a site in one."""

    title: str
    processes: tuple[str, ...]
    metrics: tuple[Metric, ...]


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_EDGE = ("neighbour",)
_TRAINER, _EXCHANGE, _INFERENCE = ("trainer", "site"), ("exchange", "site"), ("inference", "site")

GROUPS = (
    Group(
        "Process",
        ("trainer", "exchange", "inference", "site", "fleet", "console"),
        (Metric("concord_build_info", _G, "Version and kind of this process; always 1.", ("version", "process")),),
    ),
    Group(
        "Training",
        _TRAINER,
        (
            Metric(
                "concord_site_info",
                _G,
                "What the site trains, and the metric it is judged by; always 1.",
                ("federation", "task", "algorithm", "metric"),
            ),
            Metric("concord_phase", _G, "1 for the phase the site is in, 0 for the others.", ("phase",)),
            Metric("concord_site_parameters", _G, "Numbers of the model, those that stay at the site included."),
            Metric("concord_rounds_total", _C, "Rounds done since the job began."),
            Metric("concord_rounds_target", _G, "Rounds after which the job ends; none if it does not end by rounds."),
            Metric("concord_local_steps_total", _C, "Local steps done since the job began."),
            Metric("concord_samples_total", _C, "Training samples used since the job began, each time counted."),
            Metric("concord_steps_per_second", _G, "Local steps per second between the last two reports."),
            Metric("concord_loss", _G, "Training loss of the last steps; not told where training is private."),
            Metric("concord_metric_value", _G, "Metrics on the site's validation data, newest.", ("metric",)),
            Metric("concord_evaluated_timestamp_seconds", _G, "When they were measured, in Unix time."),
            Metric("concord_incarnation", _G, "Which life of the site this is: a restart counts one up."),
            Metric("concord_bad_steps_total", _C, "Steps whose gradient was not finite, and was not used."),
            Metric("concord_rollbacks_total", _C, "Returns to a checkpoint after too many of those."),
            Metric("concord_trainer_turned_timestamp_seconds", _G, "When the loop last turned, in Unix time."),
            Metric("concord_step_seconds", _H, "A local step, its gradient included."),
            Metric("concord_round_seconds", _H, "From the end of a round to that of the next, rests included."),
            Metric("concord_rest_seconds_total", _C, "Time rested to keep the pace of the job."),
            Metric("concord_mailbox_wait_seconds_total", _C, "Time the loop took to hand over and take updates."),
            Metric("concord_snapshot_version", _G, "Version of the model published last."),
        ),
    ),
    Group(
        "Edges as the trainer sees them",
        _TRAINER,
        (
            Metric("concord_consensus_distance", _G, "Distance of the two models over the norm of ours.", _EDGE),
            Metric("concord_staleness_rounds", _G, "Rounds of ours since news from there was absorbed.", _EDGE),
            Metric("concord_staleness_seconds", _G, "Time since news from there was absorbed.", _EDGE),
            Metric("concord_neighbour_round", _G, "Round the neighbour was in when it sent that.", _EDGE),
            Metric("concord_edge_penalty", _G, "Strength of agreement of the edge.", _EDGE),
            Metric("concord_edge_epoch", _G, "How often the edge was made.", _EDGE),
            Metric("concord_updates_published_total", _C, "Updates laid into the outbox.", _EDGE),
            Metric("concord_updates_absorbed_total", _C, "Updates from there that training has used.", _EDGE),
            Metric("concord_topology_version", _G, "Version of the membership document in force."),
            Metric("concord_topology_neighbours", _G, "Edges of the site."),
        ),
    ),
    Group(
        "Checkpoints",
        _TRAINER,
        (
            Metric("concord_checkpoint_timestamp_seconds", _G, "When the newest was written, in Unix time."),
            Metric("concord_checkpoint_write_seconds", _G, "How long writing it took."),
            Metric("concord_checkpoint_bytes", _G, "How large it is."),
            Metric("concord_checkpoints_total", _C, "Checkpoints written by this process."),
            Metric("concord_checkpoint_failures_total", _C, "Checkpoints that could not be written."),
        ),
    ),
    Group(
        "Privacy, where the job asks for it",
        _TRAINER,
        (
            Metric("concord_privacy_epsilon", _G, "Spent so far; infinite if beyond all bounds."),
            Metric("concord_privacy_budget_epsilon", _G, "What may be spent, if there is a budget."),
            Metric("concord_privacy_delta", _G, "The delta that epsilon goes with."),
            Metric("concord_privacy_complete", _G, "0 if an earlier life was not counted, and epsilon is too low."),
        ),
    ),
    Group(
        "Exchange",
        _EXCHANGE,
        (
            Metric("concord_updates_sent_total", _C, "Our updates that the neighbour has stored.", _EDGE),
            Metric("concord_updates_received_total", _C, "Updates from there that were stored here.", _EDGE),
            Metric("concord_updates_known_total", _C, "Updates from there that we had already.", _EDGE),
            Metric("concord_updates_refused_total", _C, "Updates from there that were refused.", (*_EDGE, "reason")),
            Metric("concord_updates_rejected_total", _C, "Our updates that they refused.", (*_EDGE, "reason")),
            Metric("concord_requests_unproven_total", _C, "Requests refused for the identity they claimed."),
            Metric("concord_requests_too_often_total", _C, "Requests refused because they came too often."),
            Metric("concord_connections_turned_away_total", _C, "Connections refused or cut off.", ("reason",)),
            Metric("concord_bytes_sent_total", _C, "Bytes of updates sent there.", _EDGE),
            Metric("concord_bytes_received_total", _C, "Bytes of updates from there.", _EDGE),
            Metric("concord_delivery_seconds", _H, "From the first attempt until an update was stored there."),
            Metric("concord_delivery_last_seconds", _G, "The same of the newest update.", _EDGE),
            Metric("concord_update_age_seconds", _H, "Age of updates when stored here, by both clocks."),
            Metric("concord_update_age_last_seconds", _G, "The same of the newest update.", _EDGE),
            Metric("concord_delivery_attempts_total", _C, "Requests made to the neighbour.", _EDGE),
            Metric("concord_delivery_failures_total", _C, "Those that failed or were refused.", _EDGE),
            Metric("concord_circuit_state", _G, "1 for the state of the circuit, 0 for others.", (*_EDGE, "state")),
            Metric("concord_mailbox_emptied_total", _C, "How often the mailbox had lost its content."),
            Metric("concord_mailbox_errors_total", _C, "Requests that failed because of the mailbox."),
            Metric("concord_certificate_expiry_timestamp_seconds", _G, "When the certificate ends, in Unix time."),
        ),
    ),
    Group(
        "Redis of the site",
        ("trainer", "exchange", "inference", "site"),
        (
            Metric("concord_redis_seconds", _H, "A command that was answered."),
            Metric("concord_redis_failures_total", _C, "Commands that were not."),
            Metric("concord_redis_memory_bytes", _G, "What its data take; seen every five seconds by the trainer."),
            Metric("concord_redis_memory_limit_bytes", _G, "What they may take; none if there is no limit."),
        ),
    ),
    Group(
        "Inference",
        _INFERENCE,
        (
            Metric("concord_inference_requests_total", _C, "Requests answered.", ("route", "status")),
            Metric("concord_inference_seconds", _H, "From the request to its answer.", ("route",)),
            Metric("concord_inference_rows_total", _C, "Rows answered."),
            Metric("concord_inference_batches_total", _C, "Batches computed."),
            Metric("concord_inference_batched_requests_total", _C, "Requests in them."),
            Metric("concord_inference_batched_rows_total", _C, "Rows in them."),
            Metric("concord_inference_queue_rows", _G, "Rows that wait."),
            Metric("concord_inference_queue_limit_rows", _G, "Rows that may wait."),
            Metric("concord_inference_queue_refused_total", _C, "Requests that found no room or waited too long."),
            Metric("concord_inference_abandoned_total", _C, "Requests not computed because their callers had gone."),
            Metric("concord_model_ready", _G, "1 if there is a model to answer with."),
            Metric("concord_model_version", _G, "Version in service."),
            Metric("concord_model_round", _G, "Round it was published in."),
            Metric("concord_model_created_timestamp_seconds", _G, "When it was published, in Unix time."),
            Metric("concord_model_swaps_total", _C, "Models put into service."),
            Metric("concord_model_refused_total", _C, "Snapshots that could not be loaded."),
            Metric("concord_model_held_back_total", _C, "Models the gate did not let into service."),
            Metric("concord_model_following", _G, "1 if newer models are served as they come, 0 if one is held."),
            Metric("concord_shadow_requests_total", _C, "Answers compared with those of a candidate."),
            Metric("concord_shadow_disagreements_total", _C, "Rows in which the two named another class."),
        ),
    ),
    Group(
        "Fleet",
        ("fleet",),
        (
            Metric("concord_fleet_leading", _G, "1 if this replica writes the membership document."),
            Metric("concord_fleet_has_leader", _G, "1 if some replica does, as far as this one knows."),
            Metric("concord_fleet_members", _G, "Sites in the membership document."),
            Metric("concord_fleet_sites_ready", _G, "Sites that are ready."),
            Metric("concord_fleet_sites_waiting", _G, "Sites that wait to become members."),
            Metric("concord_fleet_problems", _G, "Things that are wrong and that somebody has to mend."),
            Metric("concord_fleet_failures", _G, "What this replica cannot reach or do at the moment."),
            Metric("concord_fleet_topology_version", _G, "Version of the membership document."),
        ),
    ),
    Group(
        "Console",
        ("console",),
        (
            Metric("concord_console_listeners", _G, "Browsers that look."),
            Metric("concord_console_sites", _G, "Sites it asks."),
            Metric("concord_console_sites_unreachable", _G, "Those that did not answer when last asked."),
        ),
    ),
)

METRICS = {metric.name: metric for group in GROUPS for metric in group.metrics}
