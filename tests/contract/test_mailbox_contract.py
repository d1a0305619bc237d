"""What every mailbox does, in memory and in Redis alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import pytest

from concord.errors import MailboxError
from concord.mailbox.limits import MailboxLimits
from concord.mailbox.memory import MemoryMailbox
from concord.mailbox.redis import RedisMailbox
from concord.site.ports import Box, Mailbox, Receipt, Slot
from concord.wire.codec import MAX_COUNTER
from concord.wire.messages import Stamp

pytestmark = pytest.mark.anyio

PATIENCE = 5.0
"""Seconds after which something that should have happened did not."""


@dataclass(frozen=True)
class Site:
    """Opens mailboxes: in Redis each call gives another process's view of the same one."""

    open: Callable[[MailboxLimits], Mailbox]


@pytest.fixture(params=["memory", "redis"])
async def site(request: pytest.FixtureRequest, federation: str) -> AsyncIterator[Site]:
    opened: list[Mailbox] = []

    def open_mailbox(limits: MailboxLimits) -> Mailbox:
        if request.param == "memory":
            opened.append(MemoryMailbox(limits))
        else:
            opened.append(RedisMailbox(request.getfixturevalue("redis_url"), federation, "N1", limits))
        return opened[-1]

    yield Site(open_mailbox)
    for mailbox in opened:
        await mailbox.close()


@pytest.fixture
def mailbox(site: Site) -> Mailbox:
    return site.open(MailboxLimits())


def slot(sequence: int, blob: bytes = b"", epoch: int = 1, incarnation: int = 1) -> Slot:
    return Slot(Stamp(epoch, incarnation, sequence), blob or str(sequence).encode())


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 3_000_000])
async def test_an_update_of_any_size_comes_out_as_it_went_in(mailbox: Mailbox, size: int) -> None:
    blob = bytes(size)
    await mailbox.put(Box.INBOX, "N2", Slot(Stamp(1, 1, 1), b"before"))
    await mailbox.put(Box.INBOX, "N2", Slot(Stamp(1, 1, 2), blob))
    await mailbox.put(Box.INBOX, "N3", Slot(Stamp(1, 1, 1), b"small"))
    found = await mailbox.collect(Box.INBOX, {"N2": None, "N3": None, "N4": None})
    assert found == {"N2": Slot(Stamp(1, 1, 2), blob), "N3": Slot(Stamp(1, 1, 1), b"small")}
    assert await mailbox.read(Box.INBOX, "N2", Stamp(1, 1, 2)) is None


async def test_an_empty_slot_reads_as_none(mailbox: Mailbox) -> None:
    assert await mailbox.read(Box.INBOX, "N2") is None
    assert await mailbox.collect(Box.INBOX, {"N2": None, "N3": Stamp(1, 1, 1)}) == {}
    assert await mailbox.collect(Box.INBOX, {}) == {}


async def test_reads_what_was_put(mailbox: Mailbox) -> None:
    blob = bytes(range(256)) * 3
    receipt = await mailbox.put(Box.INBOX, "N2", slot(7, blob))
    assert receipt == Receipt(stored=True, newest=Stamp(1, 1, 7))
    got = await mailbox.read(Box.INBOX, "N2")
    assert got == slot(7, blob)
    assert isinstance(got.blob, bytes)


async def test_boxes_and_neighbours_are_apart(mailbox: Mailbox) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(1))
    await mailbox.put(Box.OUTBOX, "N2", slot(2))
    await mailbox.put(Box.INBOX, "N3", slot(3))
    assert await mailbox.read(Box.INBOX, "N2") == slot(1)
    assert await mailbox.read(Box.OUTBOX, "N2") == slot(2)
    assert await mailbox.read(Box.INBOX, "N3") == slot(3)
    assert await mailbox.read(Box.OUTBOX, "N3") is None


NEWEST_LAST = [
    Stamp(0, 0, 9),
    Stamp(0, 0, 10),
    Stamp(0, 1, 2),
    Stamp(0, 10, 1),
    Stamp(1, 0, 0),
    Stamp(2, 3, MAX_COUNTER - 1),
    Stamp(2, 3, MAX_COUNTER),
    Stamp(10, 0, 0),
]


@pytest.mark.parametrize(("older", "newer"), list(pairwise(NEWEST_LAST)), ids=str)
async def test_newest_wins_by_number(mailbox: Mailbox, older: Stamp, newer: Stamp) -> None:
    assert (await mailbox.put(Box.INBOX, "N2", Slot(older, b"old"))).stored
    assert await mailbox.put(Box.INBOX, "N2", Slot(newer, b"new")) == Receipt(True, newer)
    assert await mailbox.put(Box.INBOX, "N2", Slot(older, b"old")) == Receipt(False, newer)
    assert await mailbox.read(Box.INBOX, "N2") == Slot(newer, b"new")


async def test_the_same_again_is_acknowledged_and_changes_nothing(mailbox: Mailbox) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(5, b"first"))
    assert await mailbox.put(Box.INBOX, "N2", slot(5, b"again")) == Receipt(False, Stamp(1, 1, 5))
    assert await mailbox.read(Box.INBOX, "N2") == slot(5, b"first")


async def test_newest_wins_under_concurrent_puts(mailbox: Mailbox) -> None:
    order = list(range(1, 101))
    Random(0).shuffle(order)
    receipts = await asyncio.gather(*(mailbox.put(Box.INBOX, "N2", slot(number)) for number in order))
    assert await mailbox.read(Box.INBOX, "N2") == slot(100)
    assert all(receipt.newest.sequence >= number for receipt, number in zip(receipts, order, strict=True))


async def test_reads_only_what_is_newer(mailbox: Mailbox) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(5))
    assert await mailbox.read(Box.INBOX, "N2", after=Stamp(1, 1, 4)) == slot(5)
    assert await mailbox.read(Box.INBOX, "N2", after=Stamp(1, 0, 99)) == slot(5)
    assert await mailbox.read(Box.INBOX, "N2", after=Stamp(1, 1, 5)) is None
    assert await mailbox.read(Box.INBOX, "N2", after=Stamp(2, 0, 0)) is None


async def test_collects_what_is_new_of_several(mailbox: Mailbox) -> None:
    for number, neighbour in enumerate(["N2", "N3", "N4"]):
        await mailbox.put(Box.INBOX, neighbour, slot(number))
    seen = {"N2": Stamp(1, 1, 0), "N4": Stamp(1, 1, 1), "N5": None, "N3": None}
    assert await mailbox.collect(Box.INBOX, seen) == {"N3": slot(1), "N4": slot(2)}


async def test_discard_empties_one_slot(mailbox: Mailbox) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(9))
    await mailbox.put(Box.INBOX, "N3", slot(9))
    await mailbox.discard(Box.INBOX, "N2")
    await mailbox.discard(Box.INBOX, "N2")
    assert await mailbox.read(Box.INBOX, "N2") is None
    assert await mailbox.read(Box.INBOX, "N3") == slot(9)
    assert (await mailbox.put(Box.INBOX, "N2", slot(1))).stored


async def test_notes(mailbox: Mailbox) -> None:
    assert await mailbox.read_note("status") is None
    await mailbox.write_note("status", "größer\n")
    await mailbox.write_note("edges", "")
    assert await mailbox.read_note("status") == "größer\n"
    assert await mailbox.read_note("edges") == ""
    await mailbox.write_note("status", "other")
    assert await mailbox.read_note("status") == "other"


async def test_wait_returns_at_once_if_something_came_after_the_ticket(mailbox: Mailbox) -> None:
    ticket = await mailbox.ticket(Box.OUTBOX)
    await mailbox.put(Box.OUTBOX, "N2", slot(1))
    moved = await asyncio.wait_for(mailbox.wait(Box.OUTBOX, ticket, 60), PATIENCE)
    assert moved != ticket
    assert moved == await mailbox.ticket(Box.OUTBOX)


async def test_wait_times_out_with_the_same_ticket(mailbox: Mailbox) -> None:
    await mailbox.put(Box.OUTBOX, "N2", slot(1))
    ticket = await mailbox.ticket(Box.OUTBOX)
    assert await mailbox.wait(Box.OUTBOX, ticket, 0.02) == ticket
    assert await mailbox.wait(Box.OUTBOX, ticket, 0) == ticket


async def test_all_who_wait_are_woken_promptly(mailbox: Mailbox) -> None:
    ticket = await mailbox.ticket(Box.OUTBOX)
    waiting = [asyncio.create_task(mailbox.wait(Box.OUTBOX, ticket, 60)) for _ in range(40)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in waiting)
    begun = time.monotonic()
    await mailbox.put(Box.OUTBOX, "N2", slot(1))
    tickets = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert time.monotonic() - begun < 1.0
    assert set(tickets) == {await mailbox.ticket(Box.OUTBOX)}


async def test_other_work_goes_on_while_many_wait(mailbox: Mailbox) -> None:
    ticket = await mailbox.ticket(Box.INBOX)
    waiting = [asyncio.create_task(mailbox.wait(Box.INBOX, ticket, 60)) for _ in range(40)]
    await asyncio.sleep(0.05)
    await asyncio.wait_for(mailbox.put(Box.OUTBOX, "N2", slot(1)), PATIENCE)
    assert await asyncio.wait_for(mailbox.read(Box.OUTBOX, "N2"), PATIENCE) == slot(1)
    for task in waiting:
        task.cancel()
    assert all(task.cancelled() for task in (await asyncio.wait(waiting))[0])
    assert await mailbox.read(Box.OUTBOX, "N2") == slot(1)


async def test_only_stored_puts_in_the_same_box_wake(mailbox: Mailbox) -> None:
    await mailbox.put(Box.OUTBOX, "N2", slot(5))
    ticket = await mailbox.ticket(Box.OUTBOX)
    await mailbox.put(Box.OUTBOX, "N2", slot(5))
    await mailbox.put(Box.INBOX, "N2", slot(9))
    assert await mailbox.wait(Box.OUTBOX, ticket, 0.02) == ticket


async def test_a_follower_misses_nothing(mailbox: Mailbox) -> None:
    """Read, then wait from a ticket taken before reading: whatever is put in between, the last is seen."""
    last = 200

    async def follow() -> int:
        seen = 0
        ticket = await mailbox.ticket(Box.OUTBOX)
        while seen < last:
            newest = await mailbox.read(Box.OUTBOX, "N2")
            seen = newest.stamp.sequence if newest else 0
            if seen < last:
                ticket = await mailbox.wait(Box.OUTBOX, ticket, 60)
        return seen

    follower = asyncio.create_task(follow())
    for number in range(1, last + 1):
        await mailbox.put(Box.OUTBOX, "N2", slot(number))
        if number % 7 == 0:
            await asyncio.sleep(0.001)
    assert await asyncio.wait_for(follower, PATIENCE) == last


async def test_a_slot_is_forgotten_after_its_time(site: Site) -> None:
    mailbox = site.open(MailboxLimits(ttl_seconds=0.05, max_total_bytes=10))
    await mailbox.put(Box.INBOX, "N2", slot(5, b"12345678"))
    assert await mailbox.read(Box.INBOX, "N2") is not None
    await asyncio.sleep(0.08)
    assert await mailbox.read(Box.INBOX, "N2") is None
    assert (await mailbox.put(Box.INBOX, "N3", slot(1, b"12345678"))).stored, "what is forgotten takes no room"


async def test_a_put_renews_the_time(site: Site) -> None:
    mailbox = site.open(MailboxLimits(ttl_seconds=0.3))
    for number in range(1, 5):
        await mailbox.put(Box.INBOX, "N2", slot(number))
        await asyncio.sleep(0.12)
    assert await mailbox.read(Box.INBOX, "N2") == slot(4)


async def test_a_slot_has_a_byte_cap(site: Site) -> None:
    mailbox = site.open(MailboxLimits(max_slot_bytes=10))
    await mailbox.put(Box.INBOX, "N2", slot(1, b"x" * 10))
    with pytest.raises(MailboxError, match="11 bytes is over a slot's limit of 10"):
        await mailbox.put(Box.INBOX, "N2", slot(2, b"x" * 11))
    assert await mailbox.read(Box.INBOX, "N2") == slot(1, b"x" * 10)


async def test_the_mailbox_has_a_byte_cap(site: Site) -> None:
    mailbox = site.open(MailboxLimits(max_total_bytes=20))
    await mailbox.put(Box.INBOX, "N2", slot(1, b"x" * 10))
    await mailbox.put(Box.OUTBOX, "N2", slot(1, b"x" * 10))
    with pytest.raises(MailboxError, match="over its limit of 20"):
        await mailbox.put(Box.INBOX, "N3", slot(1, b"x"))
    assert await mailbox.read(Box.INBOX, "N3") is None
    assert (await mailbox.put(Box.INBOX, "N2", slot(2, b"x" * 10))).stored, "replacing takes no more room"
    await mailbox.discard(Box.OUTBOX, "N2")
    assert (await mailbox.put(Box.INBOX, "N3", slot(1, b"x" * 10))).stored


async def test_a_closed_mailbox_refuses(mailbox: Mailbox) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(1))
    ticket = await mailbox.ticket(Box.INBOX)
    waiting = asyncio.create_task(mailbox.wait(Box.INBOX, ticket, 60))
    await asyncio.sleep(0.02)
    await mailbox.close()
    with pytest.raises(MailboxError):
        await asyncio.wait_for(waiting, PATIENCE)
    with pytest.raises(MailboxError):
        await mailbox.read(Box.INBOX, "N2")
    with pytest.raises(MailboxError):
        await mailbox.put(Box.INBOX, "N2", slot(2))
    with pytest.raises(MailboxError):
        await mailbox.wait(Box.INBOX, ticket, 0)
