"""What becomes of each update, step by step, told under one id that both ends of its edge derive alike: to the log, and
to whoever makes traces.

The id is made of what is on the wire anyway: federation, sender, receiver and stamp. Must not know how logs are
written, nor what a trace is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from concord.errors import UpdateRefused
from concord.wire.messages import Stamp

log = logging.getLogger(__name__)


class Step(StrEnum):
    """Where on its way an update is, in this order."""

    PUBLISHED = "published"
    """The sender's trainer laid it in its outbox."""
    DELIVERED = "delivered"
    """The sender's exchange handed it to the receiver's."""
    STORED = "stored"
    """The receiver's exchange checked it and laid it in its inbox."""
    ABSORBED = "absorbed"
    """The receiver's trainer took it into its model's anchor."""


class Tracer(Protocol):
    """Who draws the way of updates."""

    def update(self, step: str, update: str, neighbour: str, seconds: float) -> None:
        """The update with this id has done a step that took so long; called from any thread, must not wait."""

    def traceparent(self, update: str) -> str:
        """The header that goes with an update over HTTP."""


class Journey:
    """Tells of the updates that leave one site, and of those that come to it; at level debug, refusals as warnings.

    A quiet log and no tracer cost two comparisons per update.
    """

    def __init__(self, federation: str = "", site: str = "", tracer: Tracer | None = None) -> None:
        self._federation = federation
        self._site = site
        self._tracer = tracer

    def outgoing(self, step: Step, neighbour: str, stamp: Stamp, seconds: float) -> None:
        """This site's update for `neighbour` has done a step that took so long."""
        if self._tracer is not None or log.isEnabledFor(logging.DEBUG):
            self._tell(step, self._id(self._site, neighbour, stamp), neighbour, seconds)

    def incoming(self, step: Step, neighbour: str, stamp: Stamp, seconds: float) -> None:
        """The update of `neighbour` for this site has done a step that took so long."""
        if self._tracer is not None or log.isEnabledFor(logging.DEBUG):
            self._tell(step, self._id(neighbour, self._site, stamp), neighbour, seconds)

    def headers(self, neighbour: str, stamp: Stamp) -> Mapping[str, str]:
        """What goes with this site's update for `neighbour` over HTTP, for those who draw its way."""
        if self._tracer is None:
            return {}
        return {"traceparent": self._tracer.traceparent(self._id(self._site, neighbour, stamp))}

    def outgoing_refused(self, neighbour: str, stamp: Stamp, reason: str, detail: str) -> None:
        """`neighbour` will not have an update of this site."""
        update = self._id(self._site, neighbour, stamp)
        extra = {"update": update, "neighbour": neighbour, "reason": reason}
        log.warning("update refused by %s: %s", neighbour, detail, extra=extra)

    def incoming_refused(self, neighbour: str, refusal: UpdateRefused, stamp: Stamp | None = None) -> None:
        """This site will not have an update of `neighbour`; its `stamp`, unless the refusal has it or none is known."""
        extra = {"neighbour": neighbour, "reason": refusal.reason.value}
        known = refusal.stamp if stamp is None else str(stamp)
        if known is not None:
            extra["update"] = self._id(neighbour, self._site, known)
        log.warning("update of %s refused: %s", neighbour, refusal, extra=extra)

    def _id(self, sender: str, receiver: str, stamp: Stamp | str) -> str:
        return f"{self._federation}/{sender}/{receiver}/{stamp}"

    def _tell(self, step: Step, update: str, neighbour: str, seconds: float) -> None:
        extra = {"update": update, "neighbour": neighbour, "milliseconds": round(1000 * seconds, 3)}
        log.debug("update %s", step, extra=extra)
        if self._tracer is not None:
            self._tracer.update(step.value, update, neighbour, seconds)
