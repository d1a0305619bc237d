"""Reads one site's status document into what the console shows of it. Pure.

The document comes from a network: whatever it holds, the outcome is a value of bounded size or a ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from math import isfinite
from typing import TypeGuard

_LONGEST = 120
"""Characters of any text that is shown."""
_MOST = 1000
"""Entries of any mapping that is shown."""


class State(StrEnum):
    """How a site stands: as it says itself, or, if it says nothing (new), what the console makes of that."""

    WAITING = "waiting"
    JOINING = "joining"
    TRAINING = "training"
    FINISHED = "finished"
    STALLED = "stalled"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class EdgeView:
    """One edge from this side; counters since the job began, staleness in seconds and in rounds."""

    epoch: int = 0
    sent: int = 0
    received: int = 0
    neighbour_round: int | None = None
    staleness_seconds: float | None = None
    staleness_rounds: int | None = None
    distance: float | None = None
    penalty: float | None = None
    refused: int = 0

    def to_row(self) -> list[float | None]:
        """The values in the order of `EDGE_COLUMNS`."""
        return [getattr(self, column) for column in EDGE_COLUMNS]


EDGE_COLUMNS = tuple(one.name for one in fields(EdgeView))


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What a site says of itself. `value` is its headline metric; `refused` counts updates it did not take."""

    state: State
    federation: str = ""
    task: str = ""
    algorithm: str = ""
    metric: str = "accuracy"
    rounds: int | None = None
    round: int = 0
    step: int = 0
    value: float | None = None
    loss: float | None = None
    samples: int = 0
    classes: Mapping[str, int] | None = None
    parameters: int = 0
    steps_per_second: float = 0.0
    version: int = 0
    incarnation: int = 0
    bad_steps: int = 0
    rollbacks: int = 0
    refused: int = 0
    mailbox: str = "ok"
    reported_at: float = 0.0
    edges: Mapping[str, EdgeView] | None = None


def read_report(document: object) -> SiteReport:
    """A report from a status document; ValueError if it is not one, or the trainer has not reported yet."""
    status = _mapping(document)
    progress = status.get("progress")
    if not isinstance(progress, Mapping):
        raise ValueError("its trainer has not reported yet")
    exchange = _mapping(status.get("exchange"))
    traffic = _mapping(exchange.get("edges"))
    metric = _text(status.get("metric")) or "accuracy"
    edges = {_text(name): _edge(edge, traffic.get(name)) for name, edge in _entries(progress.get("edges"))}
    return SiteReport(
        state=_state(progress.get("phase")),
        federation=_text(status.get("federation")),
        task=_text(status.get("task")),
        algorithm=_text(status.get("algorithm")),
        metric=metric,
        rounds=_count(status.get("rounds")) or None,
        round=_count(progress.get("round")),
        step=_count(progress.get("step")),
        value=_number(_mapping(progress.get("metrics")).get(metric)),
        loss=_number(progress.get("loss")),
        samples=_count(progress.get("samples")),
        classes={_text(name): _count(count) for name, count in _entries(status.get("classes"))},
        parameters=_count(status.get("parameters")),
        steps_per_second=_number(status.get("steps_per_second")) or 0.0,
        version=_count(progress.get("version")),
        incarnation=_count(progress.get("incarnation")),
        bad_steps=_count(progress.get("bad_steps")),
        rollbacks=_count(progress.get("rollbacks")),
        refused=sum(edge.refused for edge in edges.values()) + _count(exchange.get("unproven")),
        mailbox=_text(exchange.get("mailbox")) or "ok",
        reported_at=_moment(status.get("reported_at")),
        edges=edges,
    )


def _edge(edge: object, traffic: object) -> EdgeView:
    known = _mapping(edge)
    return EdgeView(
        epoch=_count(known.get("epoch")),
        sent=_count(known.get("sent")),
        received=_count(known.get("received")),
        neighbour_round=_optional(known.get("neighbour_round")),
        staleness_seconds=_number(known.get("staleness_seconds")),
        staleness_rounds=_optional(known.get("staleness_rounds")),
        distance=_number(known.get("consensus_distance")),
        penalty=_number(known.get("penalty")),
        refused=sum(_count(count) for _, count in _entries(_mapping(traffic).get("refused"))),
    )


def _state(phase: object) -> State:
    for state in (State.JOINING, State.TRAINING, State.FINISHED):
        if phase == state.value:
            return state
    raise ValueError(f"it is in a phase that is not known here: {_text(phase)!r}")


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _entries(value: object) -> list[tuple[str, object]]:
    return list(_mapping(value).items())[:_MOST]


def _text(value: object) -> str:
    return value[:_LONGEST] if isinstance(value, str) else ""


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 and isfinite(value)


def _number(value: object) -> float | None:
    """Six significant digits are all that can be seen, and make short messages."""
    return float(f"{value:.6g}") if _is_number(value) else None


def _moment(value: object) -> float:
    return float(value) if _is_number(value) else 0.0


def _count(value: object) -> int:
    return int(value) if _is_number(value) and value >= 0 else 0


def _optional(value: object) -> int | None:
    return int(value) if _is_number(value) else None
