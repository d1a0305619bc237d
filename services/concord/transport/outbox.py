"""This site's outbox as its exchange sees it: one waiter on the mailbox wakes all who have something to do.

Also notices when a neighbour remembers a later life of this site than the one that fills the outbox now.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from concord.errors import MailboxError
from concord.site.edges import NOTE_FLOOR
from concord.site.ports import Box, Mailbox, Slot
from concord.transport.backoff import DecorrelatedJitter
from concord.transport.bell import Bell, wait_for
from concord.transport.traffic import ExchangeState
from concord.wire.messages import Stamp

_WATCH_SECONDS = 30.0
"""How long one wait on the mailbox lasts when nothing happens."""
_AGREED_SECONDS = 30.0
"""For how long a neighbour that remembers just what was read last is believed without another look."""


class Outbox:
    """Reads the outbox and waits on it. `keep_watch` must run, or nothing that waits wakes up."""

    def __init__(
        self,
        mailbox: Mailbox,
        state: ExchangeState,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mailbox = mailbox
        self._state = state
        self._backoff = DecorrelatedJitter(0.05, 1.0, rng)
        self._news = Bell()
        self._clock = clock
        self._agreed: dict[str, tuple[Stamp, float]] = {}
        self._closed = False

    async def keep_watch(self) -> None:
        """Announce every change of the outbox, for ever; also after each loss of the mailbox."""
        while True:
            try:
                ticket = await self._mailbox.ticket(Box.OUTBOX)
                self._news.ring()
                await self._follow(ticket)
            except MailboxError:
                self._state.mailbox_errors += 1
                await asyncio.sleep(self._backoff.next())

    async def _follow(self, ticket: str) -> None:
        while True:
            fresh = await self._mailbox.wait(Box.OUTBOX, ticket, _WATCH_SECONDS)
            self._backoff.reset()
            if fresh != ticket:
                self._news.ring()
            ticket = fresh

    async def read(self, neighbour: str, after: Stamp | None) -> Slot | None:
        """The newest update for `neighbour` if newer than `after`."""
        slot = await self._mailbox.read(Box.OUTBOX, neighbour, after)
        if slot is not None:
            self._agreed[neighbour] = (slot.stamp, self._clock())
        return slot

    async def next(self, neighbour: str, after: Callable[[], Stamp | None]) -> Slot:
        """Like `read`, but waits until there is something; `after` is asked anew at every look."""
        while True:
            news = self._news.listen()
            slot = await self.read(neighbour, after())
            if slot is not None:
                return slot
            await news.wait()

    async def poll(self, neighbour: str, after: Stamp | None, timeout: float) -> Slot | None:
        """Like `read`, but waits up to `timeout` seconds for something; not at all after `close`."""
        deadline = time.monotonic() + timeout
        while True:
            news = self._news.listen()
            slot = await self.read(neighbour, after)
            left = deadline - time.monotonic()
            if slot is not None or self._closed or left <= 0:
                return slot
            await wait_for(news, left)

    def forget(self) -> None:
        """The mailbox was emptied, so what was read from it counts no more; everyone looks again."""
        self._agreed.clear()
        self._news.ring()

    def close(self) -> None:
        """Let everyone who polls go; nobody is made to wait from now on."""
        self._closed = True
        self._news.ring()

    async def heed(self, neighbour: str, remembered: Stamp) -> None:
        """`neighbour` has this stamp from us; if our outbox is behind it, the trainer must live above it.

        This happens when a site lost its state and starts over: its neighbours would take its updates for old
        ones.
        """
        agreed = self._agreed.get(neighbour)
        # Not for ever: the slot may have been emptied since, and a trainer that lost its state have begun anew in it.
        if agreed is not None and agreed[0] == remembered and self._clock() - agreed[1] < _AGREED_SECONDS:
            return
        current = await self.read(neighbour, None)
        if current is None or remembered <= current.stamp:
            return
        floor = int(await self._mailbox.read_note(NOTE_FLOOR) or 0)
        if remembered.incarnation >= max(floor, current.stamp.incarnation):
            await self._mailbox.write_note(NOTE_FLOOR, str(remembered.incarnation))
