"""Delivers the outbox to all neighbours and fetches what they hold for us, as background tasks, also while they change.

Also notices when the mailbox was emptied (its server was restarted), which makes every lane start afresh.
Must not know the web framework, nor what an update means.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from concord.crew import Crew
from concord.errors import MailboxError, NotAllowed
from concord.site.journey import Journey
from concord.site.ports import Mailbox
from concord.transport.acceptance import Acceptance
from concord.transport.backoff import DecorrelatedJitter
from concord.transport.lane import CourierSettings, EdgeRoute, Lane, Link
from concord.transport.outbox import Outbox
from concord.transport.traffic import ExchangeState

NOTE_MARK = "exchange-mark"
"""Mailbox note that says nothing; when it is gone, so is everything else that was in the mailbox."""


class Courier:
    """All lanes of one site. `run` it until it is cancelled."""

    def __init__(
        self,
        mailbox: Mailbox,
        routes: Sequence[EdgeRoute],
        link: Link,
        outbox: Outbox,
        acceptance: Acceptance,
        state: ExchangeState,
        settings: CourierSettings,
        rng: random.Random,
        journey: Journey | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._outbox = outbox
        self._state = state
        self._settings = settings
        self._rng = rng
        self._new_lane = partial(
            Lane, settings=settings, link=link, outbox=outbox, acceptance=acceptance, rng=rng, journey=journey
        )
        self._crew: Crew | None = None
        self._pushes: dict[str, asyncio.Task[None]] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._lanes: dict[str, Lane] = {}
        self.reroute(routes)

    def heard(self, neighbour: str) -> None:
        """A request proven to come from `neighbour` was received."""
        lane = self._lanes.get(neighbour)
        if lane is not None:
            lane.hasten()

    def reroute(self, routes: Sequence[EdgeRoute]) -> None:
        """From now on these are the edges and the ways over them; what stays as it was is not disturbed."""
        wanted = {route.neighbour: route for route in routes}
        for neighbour in [name for name, lane in self._lanes.items() if wanted.get(name) != lane.route]:
            del self._lanes[neighbour]
            for tasks in (self._pushes, self._pulls):
                _cancel(tasks.pop(neighbour, None))
            if neighbour not in wanted:
                self._state.edges.pop(neighbour, None)
        for neighbour, route in wanted.items():
            if neighbour not in self._lanes:
                self._lanes[neighbour] = self._new_lane(route, traffic=self._state.edges[neighbour])
                if self._crew is not None:
                    self._start(self._crew, neighbour)

    async def run(self) -> None:
        """Deliver and fetch for ever."""
        crew = self._crew = Crew()
        try:
            crew.add(self._outbox.keep_watch())
            for neighbour in self._lanes:
                self._start(crew, neighbour)
            crew.add(self._keep_mark(crew))
            await crew.watch()
        finally:
            self._crew = None
            await crew.dismiss()

    def _start(self, crew: Crew, neighbour: str) -> None:
        lane = self._lanes[neighbour]
        if lane.route.push:
            self._pushes[neighbour] = crew.add(self._repeat(lane.push, lambda: True))
        self._start_pull(crew, neighbour)

    def _start_pull(self, crew: Crew, neighbour: str) -> None:
        lane = self._lanes[neighbour]
        _cancel(self._pulls.get(neighbour))  # it may be held at the neighbour for news of a life that is over
        self._pulls[neighbour] = crew.add(self._repeat(lane.pull, lane.wants_pull))

    async def _repeat(self, turn: Callable[[], Awaitable[None]], wanted: Callable[[], bool]) -> None:
        backoff = DecorrelatedJitter(self._settings.retry_base, 1.0, self._rng)
        while wanted():
            try:
                await turn()
                backoff.reset()
            except MailboxError:
                self._state.mailbox_errors += 1
                await asyncio.sleep(backoff.next())
            except NotAllowed:
                await asyncio.sleep(self._settings.refused_base)

    async def _keep_mark(self, crew: Crew) -> None:
        began = True
        while True:
            try:
                if await self._mailbox.read_note(NOTE_MARK) is None:
                    await self._mailbox.write_note(NOTE_MARK, "here")
                    if not began:
                        self._start_afresh(crew)
                began = False
            except MailboxError:
                self._state.mailbox_errors += 1
            await asyncio.sleep(self._settings.mark_interval)

    def _start_afresh(self, crew: Crew) -> None:
        self._state.emptied += 1
        for lane in self._lanes.values():
            lane.forget()
        self._outbox.forget()
        for neighbour in self._lanes:
            self._start_pull(crew, neighbour)


def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
