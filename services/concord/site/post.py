"""Carries updates between a trainer that never waits and a mailbox that may be slow, full or gone.

The trainer's side is plain method calls that touch memory only. The other side is one coroutine that encodes,
decodes and talks to the mailbox, in whatever thread its event loop lives. Only the newest of anything is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from concord.crew import Crew
from concord.errors import MailboxError, UpdateRefused
from concord.site.edges import NOTE_EDGES, NOTE_FLOOR, NOTE_STATUS, EdgeTable
from concord.site.expectation import expect
from concord.site.journey import Journey, Step
from concord.site.ports import Box, Mailbox, Slot, Snapshot, SnapshotShelf
from concord.wire.codec import decode, encode
from concord.wire.messages import Stamp, Update
from concord.wire.sanity import CEILING, magnitudes

log = logging.getLogger(__name__)

_NOTE_MARK = "trainer-mark"
"""Mailbox note that says nothing; when it is gone, so is everything else that was in the mailbox."""
_MEASURE_INTERVAL = 10.0
"""Seconds between two looks at how large the numbers are that are sent."""
_FETCH_TIMEOUT = 1.0
"""Seconds a wait for news may last before the inbox is read anyway, so that a lost wake-up costs no more."""
_WATCH_INTERVAL = 1.0
"""Seconds between two looks at what neighbours remember of this site, and whether the mailbox was emptied."""
_RETRY_DELAYS = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds between attempts while the mailbox is out of reach; the last repeats."""


@dataclass(slots=True)
class _Desk:
    """What waits to be carried, newest only; guarded by the post's lock."""

    updates: dict[str, Update]
    notes: dict[str, str]
    snapshot: Snapshot | None = None
    gone: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.updates or self.notes or self.snapshot or self.gone)


class Post:
    """One trainer's connection to its site's mailbox and snapshot shelf."""

    def __init__(
        self,
        site: str,
        mailbox: Mailbox,
        shelf: SnapshotShelf,
        wall_clock: Callable[[], float] = time.time,
        journey: Journey | None = None,
    ) -> None:
        self._journey = journey or Journey()
        self.floor = 0
        """An incarnation that a neighbour has seen from this site; the trainer must live above it."""
        self.version = 0
        """The version of the snapshot laid on the shelf last."""
        self.refused = 0
        """Updates in the inbox that did not fit the edge table (any more)."""
        self._site = site
        self._wall_clock = wall_clock
        self._mailbox = mailbox
        self._shelf = shelf
        self._lock = threading.Lock()
        self._desk = _Desk({}, {})
        self._sent: dict[str, Update] = {}
        self._arrived: dict[str, Update] = {}
        self._table: EdgeTable | None = None
        self._scales: dict[str, float] = {}
        self._measure_at = -math.inf
        self._seen: dict[str, Stamp | None] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- the trainer's side: never blocks --------------------------------------------------------------------

    def announce(self, table: EdgeTable, seen: Mapping[str, Stamp | None]) -> None:
        """From now on expect and send updates by this table; `seen` are the newest stamps already absorbed.

        What the mailbox holds of neighbours that were in the table before, and are no more, is thrown away.
        """
        with self._lock:
            self._desk.gone = (self._desk.gone | self._edges()) - table.edges.keys()
            for neighbour in self._desk.gone:
                self._desk.updates.pop(neighbour, None)
                self._arrived.pop(neighbour, None)
                self._sent.pop(neighbour, None)
            self._table = table
            self._seen = dict(seen)
            self._desk.notes[NOTE_EDGES] = table.to_json()
        self._ring()

    def send(self, updates: Sequence[Update]) -> None:
        """Have the outbox hold these updates soon; an earlier one that still waits for the same edge is dropped."""
        with self._lock:
            for update in updates:
                self._desk.updates[update.header.receiver] = self._sent[update.header.receiver] = update
        self._ring()

    def take(self) -> list[Update]:
        """The updates that arrived since the last call, the newest of each neighbour."""
        if not self._arrived:
            return []
        with self._lock:
            arrived, self._arrived = self._arrived, {}
        return list(arrived.values())

    def report(self, status: str) -> None:
        """Make a status known to the site's other processes; the edge table goes along, lest the mailbox lost it."""
        with self._lock:
            self._desk.notes[NOTE_STATUS] = status
            if self._table is not None:
                seen = {name: str(stamp) for name, stamp in self._seen.items() if stamp is not None}
                table = dataclasses.replace(self._table, scales=self._scales, seen=seen)
                self._desk.notes[NOTE_EDGES] = table.to_json()
        self._ring()

    def publish(self, snapshot: Snapshot) -> None:
        """Lay a snapshot on the shelf soon, under its version or a higher one if the shelf is further."""
        with self._lock:
            self._desk.snapshot = snapshot
        self._ring()

    def _edges(self) -> frozenset[str]:
        return frozenset(self._table.edges if self._table is not None else ())

    def _ring(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed: the process is ending
                self._loop.call_soon_threadsafe(self._wake.set)

    # --- the mailbox's side ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._wake.set()
        crew = Crew()
        for work in (self._keep_delivering(), self._keep_fetching(), self._keep_watching()):
            crew.add(work)
        try:
            await crew.watch()
        finally:
            await crew.dismiss()

    def drain(self, timeout: float) -> bool:
        """`flush`, from the trainer's side."""
        if self._loop is None or self._loop.is_closed():
            return False
        return asyncio.run_coroutine_threadsafe(self.flush(timeout), self._loop).result()

    async def flush(self, timeout: float) -> bool:
        """Wait until everything handed in so far lies in the mailbox; False if it does not within `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                while self._desk or not self._idle.is_set():
                    self._wake.set()
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _keep_delivering(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._idle.clear()
            try:
                await self.deliver()
            except MailboxError as error:
                failures += 1
                await self._pause(failures, error)
                self._wake.set()
            else:
                failures = 0
                self._idle.set()

    async def deliver(self) -> None:
        """Carry what lies on the desk, once; MailboxError, and all of it lies there still, if that fails."""
        desk = self._clear_desk()
        try:
            await self._carry(desk)
        except MailboxError:
            self._put_back(desk)
            raise

    def _clear_desk(self) -> _Desk:
        with self._lock:
            desk, self._desk = self._desk, _Desk({}, {})
        return desk

    def _put_back(self, desk: _Desk) -> None:
        with self._lock:
            newer = self._desk
            self._desk = _Desk(
                desk.updates | newer.updates,
                desk.notes | newer.notes,
                newer.snapshot or desk.snapshot,
                (desk.gone | newer.gone) - self._edges(),
            )

    async def _carry(self, desk: _Desk) -> None:
        for name, text in desk.notes.items():
            await self._mailbox.write_note(name, text)
        for neighbour in desk.gone:
            for box in Box:
                await self._mailbox.discard(box, neighbour)
        self._measure(desk.updates)
        for update in desk.updates.values():
            began = time.monotonic()
            header = dataclasses.replace(update.header, sent_at=self._wall_clock())
            slot = Slot(header.stamp, encode(Update(header, update.parts)))
            receipt = await self._mailbox.put(Box.OUTBOX, header.receiver, slot)
            self._journey.outgoing(Step.PUBLISHED, header.receiver, header.stamp, time.monotonic() - began)
            if receipt.newest > slot.stamp:  # the trainer lost its state, and goes on below what it once sent
                self.floor = max(self.floor, receipt.newest.incarnation)
        if desk.snapshot is not None:
            await self._shelve(desk.snapshot)

    def _measure(self, updates: Mapping[str, Update]) -> None:
        # Seldom: each operation on a tensor gives up the interpreter, and a busy trainer is slow to hand it back.
        now = asyncio.get_running_loop().time()
        if now >= self._measure_at and updates:
            self._measure_at = now + _MEASURE_INTERVAL
            update = next(iter(updates.values()))  # all of a round are of one size
            self._scales = {name: _rounded(size) for name, size in magnitudes(update.parts).items()}

    async def _shelve(self, snapshot: Snapshot) -> None:
        # The shelf may know versions of this site that its last checkpoint does not.
        newest = max(self.version, await self._shelf.newest_version() or 0)
        version = max(newest + 1, snapshot.version)
        await self._shelf.publish(dataclasses.replace(snapshot, version=version))
        self.version = version

    async def _keep_watching(self) -> None:
        while True:
            with contextlib.suppress(MailboxError):  # the two other tasks say so
                await self.watch()
            await asyncio.sleep(_WATCH_INTERVAL)

    async def watch(self) -> None:
        """Look once whether a neighbour remembers a later life of this site, and whether the mailbox was emptied.

        If it was, what was sent last is sent again: a trainer that has finished will say nothing new.
        """
        self.floor = max(self.floor, int(await self._mailbox.read_note(NOTE_FLOOR) or 0))
        if await self._mailbox.read_note(_NOTE_MARK) is None:
            await self._mailbox.write_note(_NOTE_MARK, "here")
            with self._lock:
                self._desk.updates = self._sent | self._desk.updates
            self._ring()

    async def _keep_fetching(self) -> None:
        failures = 0
        ticket = ""
        while True:
            try:
                ticket = ticket or await self._mailbox.ticket(Box.INBOX)
                await self.fetch()
                ticket = await self._mailbox.wait(Box.INBOX, ticket, _FETCH_TIMEOUT)
                failures = 0
            except MailboxError as error:
                ticket = ""
                failures += 1
                await self._pause(failures, error)

    async def fetch(self) -> None:
        """Take what is new out of the inbox, once."""
        with self._lock:
            table, seen = self._table, self._seen
        if table is None:
            return
        for neighbour, slot in (await self._mailbox.collect(Box.INBOX, dict(seen))).items():
            seen[neighbour] = slot.stamp
            try:
                update = decode(slot.blob, expect(table, neighbour, self._site))
            except UpdateRefused as refusal:
                self.refused += 1
                self._journey.incoming_refused(neighbour, refusal, slot.stamp)
                continue
            with self._lock:
                if self._table is not table:
                    return  # announced anew meanwhile: what was judged by the old table is to be judged again
                self._arrived[neighbour] = update

    async def _pause(self, failures: int, error: MailboxError) -> None:
        delay = _RETRY_DELAYS[min(failures, len(_RETRY_DELAYS)) - 1]
        if failures == 1:
            log.warning("the mailbox is out of reach, training goes on: %s", error)
        await asyncio.sleep(delay)


def _rounded(size: float) -> float:
    """Up to a power of two, so that the table need not be read anew with every round."""
    return 2.0 ** math.ceil(math.log2(min(size, CEILING))) if size > 0 else 0.0
