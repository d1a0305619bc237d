"""Traces of updates and predictions for OpenTelemetry, sent as OTLP over HTTP; an extra, and off unless asked for.

The trace of an update is derived from its id, and each step's span from the two, so that the four processes which an
update passes draw one trace though nothing of it goes through Redis. W3C's `traceparent` goes over the wire as well,
for what is on the way. Whether a trace is kept is read from its id, as OpenTelemetry's sampler by ratio does: all
processes decide alike.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from concord.site.journey import Step

STEPS = tuple(step.value for step in Step)
"""The spans of an update, each the parent of the next."""
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Span(NamedTuple):
    """One span that is over. Ids are those of W3C's trace context; times in nanoseconds since the Unix epoch."""

    name: str
    trace: int
    id: int
    parent: int | None
    began: int
    ended: int
    attributes: Mapping[str, str | int]


class Tracing:
    """Makes spans and hands each that is to be kept to `export`; `ratio` is the share of traces to keep."""

    def __init__(
        self,
        export: Callable[[Span], None],
        close: Callable[[], None],
        ratio: float = 1.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.close = close
        """Send what is left; may take seconds."""
        self._export = export
        self._limit = round(ratio * (1 << 64))
        self._clock = clock

    def update(self, step: str, update: str, neighbour: str, seconds: float) -> None:
        """The update with this id has done a step, one of STEPS, that took so long and ended now."""
        trace = _number(update, 16)
        if not self._keeps(trace):
            return
        place = STEPS.index(step)
        parent = _number(f"{update} {STEPS[place - 1]}", 8) if place else None
        attributes = {"concord.update": update, "concord.neighbour": neighbour}
        own = _number(f"{update} {step}", 8)
        self._export(Span(f"update {step}", trace, own, parent, *self._times(seconds), attributes))

    def traceparent(self, update: str) -> str:
        """W3C's header for the request that delivers this update."""
        trace = _number(update, 16)
        return f"00-{trace:032x}-{_number(f'{update} delivered', 8):016x}-{self._keeps(trace):02x}"

    def prediction(self, route: str, status: int, seconds: float, traceparent: str) -> None:
        """A request for a prediction was answered; it is part of the caller's trace if it says one, kept if that is."""
        caller = _TRACEPARENT.fullmatch(traceparent)
        if caller is None:
            trace, parent = secrets.randbits(128) or 1, None
            kept = self._keeps(trace)
        else:
            trace, parent = int(caller[1], 16), int(caller[2], 16)
            kept = bool(int(caller[3], 16) & 1)
        if kept:
            attributes: Mapping[str, str | int] = {"http.route": route, "http.response.status_code": status}
            own = secrets.randbits(64) or 1
            self._export(Span(route, trace, own, parent, *self._times(seconds), attributes))

    def _keeps(self, trace: int) -> bool:
        return trace & ((1 << 64) - 1) < self._limit

    def _times(self, seconds: float) -> tuple[int, int]:
        now = self._clock()
        return now - round(seconds * 1e9), now


def _number(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size])
