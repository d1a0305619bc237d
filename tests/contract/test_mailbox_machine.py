"""Every mailbox and every shelf against the plainest model of it, through any course of calls that hypothesis finds."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from concord.errors import MailboxError
from concord.mailbox.limits import MailboxLimits
from concord.mailbox.memory import MemoryMailbox
from concord.mailbox.redis import RedisMailbox
from concord.serving.snapshots import MemoryShelf, RedisShelf
from concord.site.ports import Box, Mailbox, Receipt, Slot, Snapshot, SnapshotShelf
from concord.wire.messages import Stamp

T = TypeVar("T")

LIMITS = MailboxLimits(max_slot_bytes=60, max_total_bytes=150)
KEEP = 3
PATIENCE = 1.0
BLINK = 0.001
COURSES = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,  # the usual run is the same every time
    suppress_health_check=[HealthCheck.too_slow],
)

boxes = st.sampled_from(list(Box))
neighbours = st.sampled_from(["N2", "N3", "n3"])
views = st.integers(0, 1)
stamps = st.builds(Stamp, st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
blobs = st.binary(max_size=70)
versions = st.integers(0, 8)


class Machine(RuleBasedStateMachine):
    """Has an event loop for a course of calls, and what to close after it."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)

    def teardown(self) -> None:
        self.do(self.close())
        self._runner.close()

    async def close(self) -> None:
        raise NotImplementedError


class MailboxMachine(Machine):
    """Two views of one mailbox, as two processes have, and a dictionary that says what must be in it."""

    open: ClassVar[Callable[[], tuple[Mailbox, Mailbox]]]

    @initialize()
    def begin(self) -> None:
        self.views = type(self).open()
        self.held: dict[tuple[Box, str], Slot] = {}
        self.notes: dict[str, str] = {}
        self.tickets = {box: self.do(self.views[0].ticket(box)) for box in Box}
        self.stored_since = dict.fromkeys(Box, False)
        self.waited_in_vain = False

    @rule(view=views, box=boxes, neighbour=neighbours, stamp=stamps, blob=blobs)
    def put(self, view: int, box: Box, neighbour: str, stamp: Stamp, blob: bytes) -> None:
        key, before = (box, neighbour), self.held.get((box, neighbour))
        put = self.views[view].put(box, neighbour, Slot(stamp, blob))
        others = sum(len(slot.blob) for other, slot in self.held.items() if other != key)
        if len(blob) > LIMITS.max_slot_bytes:
            self.refused(put)
        elif before is not None and before.stamp >= stamp:
            assert self.do(put) == Receipt(stored=False, newest=before.stamp)
        elif others + len(blob) > LIMITS.max_total_bytes:
            self.refused(put)
        else:
            assert self.do(put) == Receipt(stored=True, newest=stamp)
            self.held[key] = Slot(stamp, blob)
            self.stored_since[box] = True

    def refused(self, put: Coroutine[Any, Any, Receipt]) -> None:
        with pytest.raises(MailboxError, match="limit of"):
            self.do(put)

    @rule(view=views, box=boxes, neighbour=neighbours)
    def discard(self, view: int, box: Box, neighbour: str) -> None:
        self.do(self.views[view].discard(box, neighbour))
        self.held.pop((box, neighbour), None)

    @rule(view=views, box=boxes, seen=st.dictionaries(neighbours, st.none() | stamps))
    def collect(self, view: int, box: Box, seen: dict[str, Stamp | None]) -> None:
        expected = {}
        for neighbour, after in seen.items():
            slot = self.held.get((box, neighbour))
            if slot is not None and (after is None or slot.stamp > after):
                expected[neighbour] = slot
        assert self.do(self.views[view].collect(box, seen)) == expected

    @rule(view=views, box=boxes, neighbour=neighbours, after=st.none() | stamps)
    def read(self, view: int, box: Box, neighbour: str, after: Stamp | None) -> None:
        slot = self.held.get((box, neighbour))
        newer = slot is not None and (after is None or slot.stamp > after)
        assert self.do(self.views[view].read(box, neighbour, after)) == (slot if newer else None)

    @rule(view=views, box=boxes)
    def wait(self, view: int, box: Box) -> None:
        stored = self.stored_since[box]
        if not stored and self.waited_in_vain:
            return  # in Redis it takes a tenth of a second
        self.waited_in_vain |= not stored
        ticket = self.do(self.views[view].wait(box, self.tickets[box], PATIENCE if stored else BLINK))
        assert (ticket != self.tickets[box]) == stored
        self.tickets[box], self.stored_since[box] = ticket, False

    @rule(view=views, name=st.sampled_from(["status", "edges"]), text=st.text(max_size=20))
    def write_note(self, view: int, name: str, text: str) -> None:
        self.do(self.views[view].write_note(name, text))
        self.notes[name] = text

    @rule(view=views, name=st.sampled_from(["status", "edges"]))
    def read_note(self, view: int, name: str) -> None:
        assert self.do(self.views[view].read_note(name)) == self.notes.get(name)

    @invariant()
    def both_views_hold_it_all(self) -> None:
        for view in getattr(self, "views", ()):
            for box in Box:
                found = self.do(view.collect(box, dict.fromkeys(("N2", "N3", "n3"))))
                assert found == {name: slot for (where, name), slot in self.held.items() if where is box}

    async def close(self) -> None:
        for view in self.views:
            await view.close()
        with pytest.raises(MailboxError):
            await self.views[0].read_note("status")


class ShelfMachine(Machine):
    """Two views of one shelf, and the snapshots that must be on it."""

    open: ClassVar[Callable[[], tuple[SnapshotShelf, SnapshotShelf]]]

    @initialize()
    def begin(self) -> None:
        self.views = type(self).open()
        self.held: dict[int, Snapshot] = {}
        self.ticket = self.do(self.views[0].ticket())
        self.published = self.waited_in_vain = False

    @rule(view=views, version=versions, blob=blobs, metrics=st.dictionaries(st.text(max_size=5), st.floats(0, 1)))
    def publish(self, view: int, version: int, blob: bytes, metrics: dict[str, float]) -> None:
        snapshot = Snapshot(version, 10 * version, 80 * version, "f00d", metrics, 1.7e9 + version / 3, blob)
        self.do(self.views[view].publish(snapshot))
        self.published = True
        self.held[version] = snapshot
        self.held = dict(sorted(self.held.items())[-KEEP:])

    @rule(view=views, version=st.none() | versions)
    def load(self, view: int, version: int | None) -> None:
        wanted = max(self.held, default=None) if version is None else version
        expected = None if wanted is None else self.held.get(wanted)
        assert self.do(self.views[view].load(version)) == expected

    @rule(view=views)
    def wait(self, view: int) -> None:
        if not self.published and self.waited_in_vain:
            return  # in Redis it takes a tenth of a second
        self.waited_in_vain |= not self.published
        ticket = self.do(self.views[view].wait(self.ticket, PATIENCE if self.published else BLINK))
        assert (ticket != self.ticket) == self.published
        self.ticket, self.published = ticket, False

    @invariant()
    def both_views_know_the_newest(self) -> None:
        for view in getattr(self, "views", ()):
            assert self.do(view.newest_version()) == max(self.held, default=None)

    async def close(self) -> None:
        for view in self.views:
            await view.close()
        with pytest.raises(MailboxError):
            await self.views[0].newest_version()


def _federation() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def test_a_mailbox_in_memory() -> None:
    def open_() -> tuple[Mailbox, Mailbox]:
        mailbox = MemoryMailbox(LIMITS)
        return mailbox, mailbox

    run_state_machine_as_test(type("InMemory", (MailboxMachine,), {"open": staticmethod(open_)}), settings=COURSES)


def test_a_mailbox_in_redis(redis_url: str) -> None:
    def open_() -> tuple[Mailbox, Mailbox]:
        name = _federation()
        return RedisMailbox(redis_url, name, "N1", LIMITS), RedisMailbox(redis_url, name, "N1", LIMITS)

    run_state_machine_as_test(type("InRedis", (MailboxMachine,), {"open": staticmethod(open_)}), settings=COURSES)


def test_a_shelf_in_memory() -> None:
    def open_() -> tuple[SnapshotShelf, SnapshotShelf]:
        shelf = MemoryShelf(KEEP)
        return shelf, shelf

    run_state_machine_as_test(type("InMemory", (ShelfMachine,), {"open": staticmethod(open_)}), settings=COURSES)


def test_a_shelf_in_redis(redis_url: str) -> None:
    def open_() -> tuple[SnapshotShelf, SnapshotShelf]:
        name = _federation()
        return RedisShelf(redis_url, name, "N1", KEEP), RedisShelf(redis_url, name, "N1", KEEP)

    run_state_machine_as_test(type("InRedis", (ShelfMachine,), {"open": staticmethod(open_)}), settings=COURSES)
