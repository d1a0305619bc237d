"""What a trainer knows, as readings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields

from concord.learning.privacy import PrivacyStatus
from concord.site.counters import TrainerCounters
from concord.site.loop import Trainer
from concord.site.status import EdgeStatus, Phase, SiteStatus
from concord.telemetry.registry import Reading, Source


def trainer_source(trainer: Trainer, topology_version: Callable[[], int], clock: Callable[[], float]) -> Source:
    """Readings of a trainer's newest status; `clock` gives seconds since the Unix epoch."""

    def read() -> Iterator[Reading]:
        yield from _counters(trainer.counters)
        yield Reading("concord_topology_version", topology_version())
        status = trainer.reported
        if status is not None:
            yield from _status(status)
            late = max(0.0, clock() - status.reported_at)
            for neighbour, edge in status.progress.edges.items():
                yield from _edge(neighbour, edge, late)
            if status.privacy is not None:
                yield from _privacy(status.privacy)

    return read


def _counters(counters: TrainerCounters) -> Iterator[Reading]:
    yield Reading("concord_trainer_turned_timestamp_seconds", counters.turned_at)
    yield Reading("concord_step_seconds", counters.steps)
    yield Reading("concord_round_seconds", counters.rounds)
    yield Reading("concord_rest_seconds_total", counters.rests)
    yield Reading("concord_mailbox_wait_seconds_total", counters.mailbox)
    yield from _known("concord_evaluated_timestamp_seconds", counters.evaluated_at)
    saved = counters.checkpoints
    yield from _known("concord_checkpoint_timestamp_seconds", saved.saved_at)
    yield from _known("concord_checkpoint_write_seconds", saved.seconds)
    yield from _known("concord_checkpoint_bytes", saved.bytes)
    yield Reading("concord_checkpoints_total", saved.written)
    yield Reading("concord_checkpoint_failures_total", saved.failed)


def _status(status: SiteStatus) -> Iterator[Reading]:
    progress = status.progress
    about = (status.federation, status.task, status.algorithm, status.metric)
    yield Reading("concord_site_info", 1, about)
    for phase in Phase:
        yield Reading("concord_phase", progress.phase is phase, (phase.value,))
    yield Reading("concord_site_parameters", status.parameters)
    yield Reading("concord_rounds_total", progress.round)
    yield from _known("concord_rounds_target", status.rounds)
    yield Reading("concord_local_steps_total", progress.step)
    yield Reading("concord_samples_total", progress.samples)
    yield Reading("concord_steps_per_second", status.steps_per_second)
    if status.privacy is None:
        yield from _known("concord_loss", progress.loss)
    for name, value in progress.metrics.items():
        yield Reading("concord_metric_value", value, (name,))
    yield Reading("concord_incarnation", progress.incarnation)
    yield Reading("concord_bad_steps_total", progress.bad_steps)
    yield Reading("concord_rollbacks_total", progress.rollbacks)
    yield Reading("concord_snapshot_version", progress.version)
    yield Reading("concord_topology_neighbours", len(progress.edges))


_OF_AN_EDGE = {
    "epoch": "concord_edge_epoch",
    "penalty": "concord_edge_penalty",
    "sent": "concord_updates_published_total",
    "received": "concord_updates_absorbed_total",
    "neighbour_round": "concord_neighbour_round",
    "staleness_rounds": "concord_staleness_rounds",
    "staleness_seconds": "concord_staleness_seconds",
    "consensus_distance": "concord_consensus_distance",
}


def _edge(neighbour: str, edge: EdgeStatus, late: float) -> Iterator[Reading]:
    for field in fields(edge):
        value = getattr(edge, field.name)
        if value is not None:
            grown = late if field.name == "staleness_seconds" else 0  # no new status comes, and time goes on
            yield Reading(_OF_AN_EDGE[field.name], value + grown, (neighbour,))


def _privacy(privacy: PrivacyStatus) -> Iterator[Reading]:
    yield Reading("concord_privacy_epsilon", math.inf if privacy.epsilon is None else privacy.epsilon)
    yield from _known("concord_privacy_budget_epsilon", privacy.target_epsilon)
    yield Reading("concord_privacy_delta", privacy.delta)
    yield Reading("concord_privacy_complete", privacy.complete)


def _known(name: str, value: float | None) -> Iterator[Reading]:
    if value is not None:
        yield Reading(name, value)
