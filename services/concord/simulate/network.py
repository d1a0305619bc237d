"""The way of an update from one site to another: time, loss, repetition and partitions.

What a deployed courier does holds here too: one transfer at a time, and the newest stands for all before it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from concord.simulate.clock import Agenda, Rank, Span
from concord.wire.messages import Update


@dataclass(frozen=True, slots=True)
class Link:
    """What one direction of an edge does to messages; times in virtual seconds.

    A transfer takes size / `bandwidth` (bytes per second; None: no time) and occupies the link; after it the message
    is on its way for a time drawn around the mean `latency` as `jitter` says (constant, uniform from 0 to twice the
    mean, exponential), so that messages may overtake each other. `loss` and `duplication` are chances.
    """

    latency: float = 0.0
    jitter: str = "constant"
    bandwidth: float | None = None
    loss: float = 0.0
    duplication: float = 0.0

    def draw_latency(self, rng: random.Random) -> float:
        """How long one message is on its way."""
        match self.jitter:
            case "uniform":
                return 2 * self.latency * rng.random()
            case "exponential":
                return self.latency * rng.expovariate(1.0)
            case _:
                return self.latency


@dataclass(slots=True)
class Traffic:
    """Counts of one lane: updates posted, put on the link, lost on it, and refused before.

    `bytes` are those of the tensors put on the link, lost ones included.
    """

    posted: int = 0
    sent: int = 0
    bytes: int = 0
    lost: int = 0
    refused: int = 0


class Lane:
    """One direction of one edge. `deliver` is called with what arrives, at the time of its arrival.

    During `outages` nothing leaves and nothing arrives; when one ends the newest update is sent again.
    """

    def __init__(
        self,
        agenda: Agenda,
        link: Link,
        outages: Sequence[Span],
        rng: random.Random,
        deliver: Callable[[Update], None],
    ) -> None:
        self.traffic = Traffic()
        self._agenda = agenda
        self._link = link
        self._outages = outages
        self._rng = rng
        self._deliver = deliver
        self._newest: Update | None = None
        self._waiting: Update | None = None
        self._busy = False
        for outage in outages:
            agenda.add(outage.end, Rank.DELIVERY, self.resend)

    def post(self, update: Update) -> None:
        """Send this update as soon as the link is free, instead of any that still waits.

        One that is not finite goes no further, because a deployed site would refuse it.
        """
        self.traffic.posted += 1
        if not _is_finite(update):
            self.traffic.refused += 1
            return
        self._newest = self._waiting = update
        self._send()

    def resend(self) -> None:
        """Send the newest update again: the receiver may have lost it, or never had it."""
        self._waiting = self._newest
        self._send()

    def forget(self) -> None:
        """The sender is gone, and its outbox with it."""
        self._newest = self._waiting = None

    def _send(self) -> None:
        if self._waiting is None or self._busy or self._is_cut():
            return
        update, self._waiting = self._waiting, None
        size = sum(part.nbytes for part in update.parts.values())
        self.traffic.sent += 1
        self.traffic.bytes += size
        arrives = self._agenda.now + self._occupy(size)
        if self._rng.random() < self._link.loss:
            self.traffic.lost += 1
            return
        copies = 2 if self._rng.random() < self._link.duplication else 1
        for _ in range(copies):
            at = arrives + self._link.draw_latency(self._rng)
            self._agenda.add(at, Rank.DELIVERY, lambda: self._arrive(update))

    def _occupy(self, size: int) -> float:
        """Seconds that the transfer takes, during which the link is busy."""
        if self._link.bandwidth is None:
            return 0.0
        seconds = size / self._link.bandwidth
        self._busy = True
        self._agenda.add(self._agenda.now + seconds, Rank.DELIVERY, self._free)
        return seconds

    def _free(self) -> None:
        self._busy = False
        self._send()

    def _arrive(self, update: Update) -> None:
        if self._is_cut():
            self.traffic.lost += 1
        else:
            self._deliver(update)

    def _is_cut(self) -> bool:
        return any(self._agenda.now in outage for outage in self._outages)


def _is_finite(update: Update) -> bool:
    # The extremes of a tensor carry any NaN or infinity in it, and finding them allocates nothing.
    parts = [part for part in update.parts.values() if part.numel()]
    return all(math.isfinite(extreme) for part in parts for extreme in torch.aminmax(part))
