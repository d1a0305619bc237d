"""A mailbox in this process's memory: for one process that is a whole site, for simulation and for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from concord.errors import MailboxError
from concord.mailbox.limits import MailboxLimits
from concord.site.ports import Box, Receipt, Slot
from concord.wire.messages import Stamp


@dataclass(frozen=True, slots=True)
class _Held:
    slot: Slot
    expires: float


class _News:
    """Counts what was stored in one box, and wakes whoever waits for the count to move."""

    def __init__(self) -> None:
        self.ticket = "0"
        self._moved = asyncio.Event()

    def announce(self) -> None:
        self.ticket = str(int(self.ticket) + 1)
        self.wake()

    def wake(self) -> None:
        # Those who wait hold the old event; whoever comes next gets the new one.
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait(self, ticket: str, timeout: float) -> str:
        if ticket == self.ticket:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._moved.wait()
        return self.ticket


class MemoryMailbox:
    """The Mailbox port in memory, for one event loop; `clock` gives seconds and needs no epoch."""

    def __init__(self, limits: MailboxLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or MailboxLimits()
        self._clock = clock
        self._held: dict[tuple[Box, str], _Held] = {}
        self._news = {box: _News() for box in Box}
        self._notes: dict[str, str] = {}
        self._closed = False

    async def put(self, box: Box, neighbour: str, slot: Slot) -> Receipt:
        """See the port; MailboxError if the slot or the mailbox would grow over its limit."""
        self._check_open()
        self._limits.check_slot(len(slot.blob))
        self._forget_expired()
        held = self._held.get((box, neighbour))
        if held and held.slot.stamp >= slot.stamp:
            return Receipt(stored=False, newest=held.slot.stamp)
        self._check_room(len(slot.blob) - (len(held.slot.blob) if held else 0))
        self._held[box, neighbour] = _Held(slot, self._clock() + self._limits.ttl_seconds)
        self._news[box].announce()
        return Receipt(stored=True, newest=slot.stamp)

    async def read(self, box: Box, neighbour: str, after: Stamp | None = None) -> Slot | None:
        """See the port."""
        return (await self.collect(box, {neighbour: after})).get(neighbour)

    async def collect(self, box: Box, seen: Mapping[str, Stamp | None]) -> dict[str, Slot]:
        """See the port."""
        self._check_open()
        self._forget_expired()
        found = {}
        for neighbour, after in seen.items():
            held = self._held.get((box, neighbour))
            if held and (after is None or held.slot.stamp > after):
                found[neighbour] = held.slot
        return found

    async def ticket(self, box: Box) -> str:
        """See the port."""
        self._check_open()
        return self._news[box].ticket

    async def wait(self, box: Box, ticket: str, timeout: float) -> str:
        """See the port."""
        self._check_open()
        moved = await self._news[box].wait(ticket, timeout)
        self._check_open()
        return moved

    async def discard(self, box: Box, neighbour: str) -> None:
        """See the port."""
        self._check_open()
        self._held.pop((box, neighbour), None)

    async def write_note(self, name: str, text: str) -> None:
        """See the port."""
        self._check_open()
        self._notes[name] = text

    async def read_note(self, name: str) -> str | None:
        """See the port."""
        self._check_open()
        return self._notes.get(name)

    async def close(self) -> None:
        """See the port; whoever waits gets a MailboxError."""
        self._closed = True
        for news in self._news.values():
            news.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise MailboxError("the mailbox was closed")

    def _check_room(self, growth: int) -> None:
        used = sum(len(held.slot.blob) for held in self._held.values())
        if used + growth > self._limits.max_total_bytes:
            raise self._limits.over_total(growth)

    def _forget_expired(self) -> None:
        now = self._clock()
        self._held = {key: held for key, held in self._held.items() if held.expires > now}
