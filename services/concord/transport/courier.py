"""Delivers the outbox to all neighbours and fetches what they hold for us, as background tasks.

Also notices when the mailbox was emptied (its server was restarted), which makes every lane start afresh.
Must not know the web framework, nor what an update means.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from concord.crew import Crew
from concord.errors import MailboxError, NotAllowed
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
    ) -> None:
        self._mailbox = mailbox
        self._outbox = outbox
        self._state = state
        self._settings = settings
        self._rng = rng
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._lanes = {
            route.neighbour: Lane(route, settings, link, outbox, acceptance, state.edges[route.neighbour], rng)
            for route in routes
        }

    def heard(self, neighbour: str) -> None:
        """A request proven to come from `neighbour` was received."""
        lane = self._lanes.get(neighbour)
        if lane is not None:
            lane.hasten()

    async def run(self) -> None:
        """Deliver and fetch for ever."""
        crew = Crew()
        try:
            crew.add(self._outbox.keep_watch())
            for lane in self._lanes.values():
                if lane.pushes:
                    crew.add(self._repeat(lane.push, lambda: True))
            self._start_pulls(crew)
            crew.add(self._keep_mark(crew))
            await crew.watch()
        finally:
            await crew.dismiss()

    def _start_pulls(self, crew: Crew) -> None:
        for neighbour, lane in self._lanes.items():
            task = self._pulls.get(neighbour)
            if task is not None:
                task.cancel()  # it may be held at the neighbour for news of a life that is over
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
        self._start_pulls(crew)
