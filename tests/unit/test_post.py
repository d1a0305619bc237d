"""The post between a trainer's thread and its mailbox: newest only, nothing lost, and the trainer never waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
import torch

from concord.consensus.algorithm import EdgeTerms, PartLayout
from concord.errors import MailboxError
from concord.mailbox.memory import MemoryMailbox
from concord.serving.snapshots import MemoryShelf
from concord.site.edges import NOTE_EDGES, NOTE_FLOOR, NOTE_STATUS, Edge, EdgeTable
from concord.site.ports import Box, Receipt, Slot, Snapshot
from concord.site.post import Post
from concord.wire.codec import encode, read_header
from concord.wire.messages import Header, Stamp, Update

pytestmark = pytest.mark.anyio

TERMS = EdgeTerms(penalty=2.0, averaging=1.0)
SIZE = 5


def table(site_epoch: int = 1) -> EdgeTable:
    edges = {"N2": Edge(site_epoch, TERMS), "N3": Edge(site_epoch, TERMS)}
    return EdgeTable("federation", "print", "ecl", 1, {"message": PartLayout("float32", SIZE)}, edges)


def update(sender: str, receiver: str, sequence: int, epoch: int = 1) -> Update:
    header = Header(
        federation="federation",
        fingerprint="print",
        sender=sender,
        receiver=receiver,
        stamp=Stamp(epoch, 1, sequence),
        step=sequence,
        round=sequence,
        algorithm="ecl",
        penalty=TERMS.penalty,
        averaging=TERMS.averaging,
        sent_at=0.0,
    )
    return Update(header, {"message": torch.full((SIZE,), float(sequence))})


class FlakyMailbox(MemoryMailbox):
    """A mailbox that can be taken away and brought back."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def put(self, box: Box, neighbour: str, slot: Slot) -> Receipt:
        if self.away:
            raise MailboxError("away")
        return await super().put(box, neighbour, slot)


@asynccontextmanager
async def running(post: Post) -> AsyncIterator[None]:
    task = asyncio.create_task(post.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def arrivals(post: Post) -> list[Update]:
    async with asyncio.timeout(5):
        while not (updates := post.take()):  # what a trainer does between its steps
            await asyncio.sleep(0.001)
    return updates


async def test_an_update_handed_in_lies_in_the_outbox_with_the_time_it_was_sent() -> None:
    mailbox = MemoryMailbox()
    post = Post("N1", mailbox, MemoryShelf(), wall_clock=lambda: 1234.5)
    async with running(post):
        post.announce(table(), {"N2": None, "N3": None})
        post.send([update("N1", "N2", 1), update("N1", "N3", 1)])
        assert await post.flush(5)
    for neighbour in ("N2", "N3"):
        slot = await mailbox.read(Box.OUTBOX, neighbour)
        assert slot is not None
        header = read_header(slot.blob, 10_000)
        assert (header.receiver, header.sent_at, slot.stamp) == (neighbour, 1234.5, Stamp(1, 1, 1))
    assert EdgeTable.from_json(await mailbox.read_note(NOTE_EDGES) or "") == table()


async def test_only_the_newest_update_of_an_edge_is_carried() -> None:
    mailbox = FlakyMailbox()
    post = Post("N1", mailbox, MemoryShelf())
    mailbox.away = True
    async with running(post):
        for sequence in (1, 2, 3):
            post.send([update("N1", "N2", sequence)])
            await asyncio.sleep(0.01)
        assert not await post.flush(0.01)
        mailbox.away = False
        assert await post.flush(5)
    slot = await mailbox.read(Box.OUTBOX, "N2")
    assert slot is not None
    assert slot.stamp.sequence == 3


async def test_what_waits_survives_an_outage_of_the_mailbox() -> None:
    mailbox, shelf = FlakyMailbox(), MemoryShelf()
    post = Post("N1", mailbox, shelf)
    mailbox.away = True
    snapshot = Snapshot(1, 2, 3, "print", {"accuracy": 0.5}, 0.0, b"blob")
    async with running(post):
        post.send([update("N1", "N2", 1)])
        await asyncio.sleep(0.01)
        post.publish(snapshot)
        post.report("{}")
        mailbox.away = False
        assert await post.flush(5)
    assert await mailbox.read(Box.OUTBOX, "N2") is not None
    assert await shelf.load() == snapshot
    assert await mailbox.read_note(NOTE_STATUS) == "{}"


async def test_versions_go_on_above_those_on_the_shelf() -> None:
    shelf = MemoryShelf()
    await shelf.publish(Snapshot(8, 2, 3, "print", {}, 0.0, b"before the crash"))
    post = Post("N1", MemoryMailbox(), shelf)
    async with running(post):
        post.publish(Snapshot(6, 1, 2, "print", {}, 0.0, b"after"))
        assert await post.flush(5)
    newest = await shelf.load()
    assert newest is not None
    assert (newest.version, newest.blob, post.version) == (9, b"after", 9)


async def test_news_arrive_once_and_in_their_newest_form() -> None:
    mailbox = MemoryMailbox()
    post = Post("N1", mailbox, MemoryShelf())
    async with running(post):
        post.announce(table(), {"N2": None, "N3": None})
        await put(mailbox, update("N2", "N1", 1))
        (first,) = await arrivals(post)
        assert first.header.stamp.sequence == 1
        await put(mailbox, update("N2", "N1", 2))
        await put(mailbox, update("N2", "N1", 3))
        await asyncio.sleep(0.02)
        (newest,) = await arrivals(post)
        assert newest.header.stamp.sequence == 3
        assert torch.equal(newest.parts["message"], torch.full((SIZE,), 3.0))
        assert post.take() == []


async def test_what_was_absorbed_before_a_restart_does_not_come_again() -> None:
    mailbox = MemoryMailbox()
    post = Post("N1", mailbox, MemoryShelf())
    await put(mailbox, update("N2", "N1", 4))
    await put(mailbox, update("N3", "N1", 9))
    async with running(post):
        post.announce(table(), {"N2": Stamp(1, 1, 4), "N3": Stamp(1, 1, 8)})
        (news,) = await arrivals(post)
        assert news.header.sender == "N3"


async def test_an_update_of_another_epoch_or_a_torn_one_is_dropped_and_counted() -> None:
    mailbox = MemoryMailbox()
    post = Post("N1", mailbox, MemoryShelf())
    async with running(post):
        post.announce(table(site_epoch=2), {"N2": None, "N3": None})
        await put(mailbox, update("N2", "N1", 1, epoch=1))
        blob = encode(update("N3", "N1", 1, epoch=2))
        await mailbox.put(Box.INBOX, "N3", Slot(Stamp(2, 1, 1), blob[:-1]))
        await put(mailbox, update("N2", "N1", 1, epoch=2))
        (good,) = await arrivals(post)
        assert good.header.stamp == Stamp(2, 1, 1)
        assert post.refused >= 1
        assert post.take() == []


async def test_a_later_life_that_a_neighbour_remembers_becomes_known() -> None:
    mailbox = MemoryMailbox()
    await mailbox.write_note(NOTE_FLOOR, "7")
    post = Post("N1", mailbox, MemoryShelf())
    async with running(post), asyncio.timeout(5):
        while not post.floor:
            await asyncio.sleep(0.001)
    assert post.floor == 7


def test_the_trainers_side_never_waits_even_without_a_mailbox() -> None:
    """No event loop runs at all here: whatever the mailbox does, these calls only touch memory."""
    post = Post("N1", MemoryMailbox(), MemoryShelf())
    began = time.perf_counter()
    post.announce(table(), {})
    for sequence in range(1000):
        post.send([update("N1", "N2", sequence)])
        post.report("{}")
        assert post.take() == []
    assert time.perf_counter() - began < 1.0
    assert post.drain(0.1) is False


async def put(mailbox: MemoryMailbox, one: Update) -> None:
    await mailbox.put(Box.INBOX, one.header.sender, Slot(one.header.stamp, encode(one)))


async def test_what_lies_there_of_a_neighbour_that_is_no_more_is_thrown_away() -> None:
    mailbox = MemoryMailbox()
    post = Post("N1", mailbox, MemoryShelf())
    post.announce(table(), {})
    async with running(post):
        post.send([update("N1", "N2", 1), update("N1", "N3", 1)])
        await post.flush(5)
        await mailbox.put(Box.INBOX, "N2", Slot(Stamp(1, 1, 1), b"news"))
        left = replace(table(), edges={"N3": Edge(1, TERMS)})
        post.announce(left, {})
        await post.flush(5)
        assert await mailbox.read(Box.OUTBOX, "N2") is None
        assert await mailbox.read(Box.INBOX, "N2") is None
        assert await mailbox.read(Box.OUTBOX, "N3") is not None
        post.announce(table(), {})
        post.send([update("N1", "N2", 2)])
        await post.flush(5)
        slot = await mailbox.read(Box.OUTBOX, "N2")
        assert slot is not None
        assert slot.stamp == Stamp(1, 1, 2)


async def test_an_outbox_that_remembers_a_later_life_raises_the_floor() -> None:
    mailbox = MemoryMailbox()
    await mailbox.put(Box.OUTBOX, "N2", Slot(Stamp(1, 5, 100), b"of a life whose state is lost"))
    post = Post("N1", mailbox, MemoryShelf())
    post.send([update("N1", "N2", 1)])
    await post.deliver()
    assert post.floor == 5
    await post.watch()
    assert post.floor == 5, "no neighbour says less than the outbox"


async def test_an_emptied_mailbox_is_filled_again_though_the_trainer_says_nothing_new() -> None:
    mailbox = MemoryMailbox()
    post = Post("N1", mailbox, MemoryShelf())
    await post.watch()
    post.announce(table(), {"N2": None, "N3": None})
    post.send([update("N1", "N2", 1), update("N1", "N3", 4)])
    await post.deliver()
    mailbox._held.clear()
    mailbox._notes.clear()
    await post.watch()
    await post.deliver()
    stamps = {name: slot.stamp for name, slot in (await mailbox.collect(Box.OUTBOX, {"N2": None, "N3": None})).items()}
    assert stamps == {"N2": Stamp(1, 1, 1), "N3": Stamp(1, 1, 4)}


async def test_what_was_judged_by_a_table_that_is_announced_anew_meanwhile_is_judged_again() -> None:
    class Slow(MemoryMailbox):
        """Lets the trainer announce while the inbox is being read."""

        async def collect(self, box: Box, seen: Mapping[str, Stamp | None]) -> dict[str, Slot]:
            found = await super().collect(box, seen)
            post.announce(table(2), {"N2": None, "N3": None})
            return found

    mailbox = Slow()
    post = Post("N1", mailbox, MemoryShelf())
    new = update("N2", "N1", 1, epoch=2)
    await mailbox.put(Box.INBOX, "N2", Slot(new.header.stamp, encode(new)))
    post.announce(table(1), {"N2": None, "N3": None})
    await post.fetch()
    assert post.take() == []
    mailbox.collect = super(Slow, mailbox).collect  # type: ignore[method-assign]
    await post.fetch()
    assert [one.header.stamp for one in post.take()] == [new.header.stamp]


async def test_the_table_says_how_large_the_numbers_are_that_the_site_sends() -> None:
    mailbox = MemoryMailbox()
    post = Post("N1", mailbox, MemoryShelf())
    running = asyncio.create_task(post.run())
    for sent, wanted in ((None, {}), (3, {"message": 4.0})):
        post.announce(table(), {"N2": None, "N3": None})
        if sent is not None:
            post.send([update("N1", "N2", sent)])
        assert await post.flush(5.0)
        post.report("{}")
        assert await post.flush(5.0)
        note = await mailbox.read_note(NOTE_EDGES)
        assert note is not None
        assert EdgeTable.from_json(note).scales == wanted
    running.cancel()
    await asyncio.wait((running,))
