"""Both ways of one edge as seen from this site: when to try, what to send, what an answer means.

Newest only: a retry sends what is newest then, never what failed. A neighbour that is away costs a request
every few seconds and nothing else. Must not know HTTP, nor what an update means.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from concord.errors import NOT_ALLOWED, JobError, RefusalReason, TransportError, UpdateRefused
from concord.site.journey import Journey, Step
from concord.site.ports import Slot
from concord.transport.acceptance import Acceptance
from concord.transport.backoff import DecorrelatedJitter
from concord.transport.bell import Bell, wait_for
from concord.transport.circuit import CircuitBreaker, CircuitState
from concord.transport.http import Busy, Delivered, Nothing, PullResult, PushResult, Refusal
from concord.transport.outbox import Outbox
from concord.transport.traffic import EdgeTraffic
from concord.wire.messages import Stamp

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EdgeRoute:
    """How this site reaches one neighbour: its base address, and whether to push there, pull there, or both.

    Without an address both are off: the neighbour calls us. `min_interval` is the least time in seconds
    between two pushes; a longer one saves bandwidth and costs freshness.
    """

    neighbour: str
    url: str | None
    push: bool
    pull: bool
    min_interval: float = 0.0

    def __post_init__(self) -> None:
        if self.url is None and (self.push or self.pull):
            raise JobError(f"the edge to {self.neighbour} is to push or pull, but its address is not known")


@dataclass(frozen=True, slots=True)
class CourierSettings:
    """Times in seconds.

    `pull_wait` is how long a neighbour may hold a pull until it has news (at most 30). After `threshold`
    failures in a row nothing is tried for `cool_down`. `retry_*` bound the jittered waits after a failure,
    `refused_*` those after a refusal, which only a person or the trainer can mend. `mark_interval` is how
    often an emptied mailbox is looked for.
    """

    pull_wait: float = 25.0
    threshold: int = 5
    cool_down: float = 3.0
    retry_base: float = 0.05
    retry_cap: float = 5.0
    refused_base: float = 1.0
    refused_cap: float = 30.0
    mark_interval: float = 1.0


_SETTLED_BY_MEMBERSHIP = frozenset({NOT_ALLOWED, RefusalReason.EPOCH.value, RefusalReason.TERMS.value})
"""Refusals that end by themselves: the two ends do not learn of a changed edge at the same time."""
_DISPUTE_CAP = 5.0
"""Seconds between two tries meanwhile, at most."""
_HASTE = 1.0
"""Signs of life from a neighbour cut waits short only if the last attempt is this many seconds ago."""


class Link(Protocol):
    """What the courier needs of a client to its neighbours; TransportError when one cannot be reached."""

    async def push(self, url: str, receiver: str, slot: Slot) -> PushResult:
        """Hand one update to a neighbour."""

    async def pull(self, url: str, sender: str, after: Stamp | None, wait: float, max_bytes: int) -> PullResult:
        """Ask a neighbour for what it holds for us."""


Clock = Callable[[], float]


class _Pause:
    """When one way of a lane may go on: jittered waits after failures, longer ones after refusals."""

    def __init__(self, settings: CourierSettings, rng: random.Random) -> None:
        self._retry = DecorrelatedJitter(settings.retry_base, settings.retry_cap, rng)
        self._refused = DecorrelatedJitter(settings.refused_base, settings.refused_cap, rng)
        self._until = 0.0
        self._firm = False

    def left(self, now: float) -> float:
        return max(0.0, self._until - now)

    def after_success(self, now: float, interval: float = 0.0) -> None:
        self._retry.reset()
        self._refused.reset()
        self._set(now + interval, firm=True)

    def after_failure(self, now: float, at_least: float | None = None) -> None:
        self._set(now + max(self._retry.next(), at_least or 0.0), firm=False)

    def after_refusal(self, now: float) -> None:
        self._set(now + self._refused.next(), firm=True)

    def after_dispute(self, now: float) -> None:
        self._set(now + min(self._refused.next(), _DISPUTE_CAP), firm=False)

    def hasten(self, now: float) -> None:
        if not self._firm:
            self._until = now

    def _set(self, until: float, firm: bool) -> None:
        self._until = until
        self._firm = firm


class Lane:
    """One edge. `push` and `pull` each do one turn, to be repeated; both share the neighbour's circuit.

    MailboxError from both turns when this site's own mailbox fails, NotAllowed from `pull` while the
    neighbour is not in the edge table. `clock` counts seconds and never goes back.
    """

    def __init__(
        self,
        route: EdgeRoute,
        settings: CourierSettings,
        link: Link,
        outbox: Outbox,
        acceptance: Acceptance,
        traffic: EdgeTraffic,
        rng: random.Random,
        clock: Clock = time.monotonic,
        journey: Journey | None = None,
    ) -> None:
        self._journey = journey or Journey()
        self.route = route
        self._url = route.url or ""
        self._settings = settings
        self._link = link
        self._outbox = outbox
        self._acceptance = acceptance
        self._traffic = traffic
        self._clock = clock
        self._circuit = CircuitBreaker(settings.threshold, settings.cool_down)
        self._push_pause = _Pause(settings, rng)
        self._pull_pause = _Pause(settings, rng)
        self._bell = Bell()
        self._tried_at = clock() - _HASTE
        self._first_try: float | None = None
        self._delivered: Stamp | None = None
        self._held: Stamp | None = None
        self._recovering = True

    def forget(self) -> None:
        """The mailbox lost its content: deliver again, and fetch again what the neighbour holds for us."""
        self._delivered = None
        self._held = None
        self._recovering = True

    def hasten(self) -> None:
        """The neighbour was heard of: what waits because it seemed away, or busy, need not wait."""
        now = self._clock()
        if now - self._tried_at >= _HASTE:
            self._circuit.hasten(now)
            self._push_pause.hasten(now)
            self._pull_pause.hasten(now)
            self._bell.ring()

    # --- ours to them ---------------------------------------------------------------------------------------

    async def push(self) -> None:
        """Deliver the newest, once."""
        await self._ready(self._push_pause)
        slot = await self._outbox.next(self.route.neighbour, lambda: self._delivered)
        if not self._circuit.allow(self._clock()):
            return
        started = self._try()
        if self._first_try is None:
            self._first_try = started
        self._traffic.bytes_out += len(slot.blob)
        result = await self._ask(self._link.push(self._url, self.route.neighbour, slot), self._push_pause)
        if isinstance(result, Delivered):
            await self._note_delivery(slot, result.newest, started)
        elif isinstance(result, Refusal):
            self._journey.outgoing_refused(self.route.neighbour, slot.stamp, result.reason, result.detail)

    async def _note_delivery(self, slot: Slot, newest: Stamp, started: float) -> None:
        now = self._clock()
        self._delivered = self._traffic.delivered = slot.stamp
        self._traffic.sent += 1
        self._traffic.delivery.observe(now - (self._first_try or started))
        self._journey.outgoing(Step.DELIVERED, self.route.neighbour, slot.stamp, now - started)
        self._first_try = None
        self._push_pause.after_success(started, self.route.min_interval)
        if newest > slot.stamp:
            await self._outbox.heed(self.route.neighbour, newest)

    # --- theirs to us ---------------------------------------------------------------------------------------

    def wants_pull(self) -> bool:
        """Whether there is anything to fetch: always if the route says so, otherwise what we lost."""
        return self.route.url is not None and (self.route.pull or self._recovering)

    async def pull(self) -> None:
        """Fetch what the neighbour holds for us, once."""
        await self._ready(self._pull_pause)
        limit = await self._acceptance.limit(self.route.neighbour)
        if not self._circuit.allow(self._clock()):
            return
        # A probe must be answered soon: the other way waits for it.
        hurry = self._recovering or self._circuit.state is CircuitState.HALF_OPEN
        wait = 0.0 if hurry else self._settings.pull_wait
        started = self._try()
        result = await self._ask(
            self._link.pull(self._url, self.route.neighbour, self._held, wait, limit), self._pull_pause
        )
        if isinstance(result, Slot):
            await self._take(result)
        elif isinstance(result, Nothing):
            self._recovering = False
            self._note_empty_pull(started, wait)

    async def _take(self, slot: Slot) -> None:
        try:
            receipt = await self._acceptance.accept(self.route.neighbour, slot.blob)
        except UpdateRefused:
            self._pull_pause.after_refusal(self._clock())
            return
        self._held = receipt.newest
        self._recovering = False
        self._pull_pause.after_success(self._clock())

    def _note_empty_pull(self, started: float, wait: float) -> None:
        now = self._clock()
        if wait and now - started < 0.5 * wait:
            self._pull_pause.after_failure(now)  # it does not hold our requests: then we must not hurry
        else:
            self._pull_pause.after_success(now)

    # --- either way -----------------------------------------------------------------------------------------

    async def _ready(self, pause: _Pause) -> None:
        while True:
            bell = self._bell.listen()
            now = self._clock()
            left = max(pause.left(now), self._circuit.wait(now))
            if left <= 0:
                return
            await wait_for(bell, left)

    def _try(self) -> float:
        self._traffic.attempts += 1
        self._tried_at = self._clock()
        return self._tried_at

    async def _ask(self, request: Awaitable[PushResult | PullResult], pause: _Pause) -> PushResult | PullResult | None:
        """The answer, once circuit, pause and counters took note of it; None if there was none."""
        try:
            result = await request
        except TransportError as error:
            self._circuit.fail(self._clock())
            self._note_failure(str(error))
            pause.after_failure(self._clock())
            return None
        except asyncio.CancelledError:
            self._circuit.abandon(self._clock())
            raise
        else:
            self._circuit.succeed()
            self._note_answer(result, pause)
            return result
        finally:
            self._traffic.circuit = self._circuit.state
            self._bell.ring()

    def _note_answer(self, result: PushResult | PullResult, pause: _Pause) -> None:
        if isinstance(result, Refusal):
            self._traffic.rejected[result.reason] += 1
            self._note_failure(f"{result.status} {result.reason}: {result.detail}")
            settles = result.reason in _SETTLED_BY_MEMBERSHIP
            (pause.after_dispute if settles else pause.after_refusal)(self._clock())
        elif isinstance(result, Busy):
            self._note_failure(f"{result.status}: {result.detail}")
            pause.after_failure(self._clock(), result.retry_after)

    def _note_failure(self, detail: str) -> None:
        self._traffic.failures += 1
        self._traffic.last_error = detail
        log.debug("%s: %s", self.route.neighbour, detail)
