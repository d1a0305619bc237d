"""What every shelf of snapshots does, in memory and in Redis alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from concord.errors import MailboxError
from concord.serving.snapshots import MOST_PINNED, MemoryShelf, RedisShelf
from concord.site.ports import Heard, Lineage, Mark, MarkResult, Marks, Snapshot, SnapshotShelf, Stock

pytestmark = pytest.mark.anyio

PATIENCE = 5.0
KEEP = 3


@pytest.fixture(params=["memory", "redis"])
async def shelf(request: pytest.FixtureRequest, federation: str) -> AsyncIterator[SnapshotShelf]:
    made: SnapshotShelf
    if request.param == "memory":
        made = MemoryShelf(keep=KEEP)
    else:
        made = RedisShelf(request.getfixturevalue("redis_url"), federation, "N1", keep=KEEP)
    yield made
    await made.close()


def snapshot(version: int, blob: bytes = b"model") -> Snapshot:
    return Snapshot(
        version=version,
        round=10 * version,
        step=80 * version,
        fingerprint="f00d",
        metrics={"accuracy": 0.5, "loss": 1e-3},
        created_at=1.7e9 + version / 3,
        blob=blob,
        lineage=Lineage(2, {"N2": Heard(9 * version, 1, 5 * version)}, 0.25),
        personal={"accuracy": 0.75},
    )


async def test_an_empty_shelf(shelf: SnapshotShelf) -> None:
    assert await shelf.newest_version() is None
    assert await shelf.load() is None
    assert await shelf.load(1) is None
    assert await shelf.stock() == Stock()
    ticket = await shelf.ticket()
    assert await shelf.wait(ticket, 0.02) == ticket


async def test_loads_what_was_published(shelf: SnapshotShelf) -> None:
    published = snapshot(1, bytes(range(256)))
    await shelf.publish(published)
    assert await shelf.newest_version() == 1
    assert await shelf.load() == published
    assert await shelf.load(1) == published
    assert await shelf.load(2) is None


async def test_the_newest_is_the_highest_number(shelf: SnapshotShelf) -> None:
    for version in (9, 10, 11):
        await shelf.publish(snapshot(version))
    assert await shelf.newest_version() == 11
    assert await shelf.load() == snapshot(11)


async def test_keeps_the_last_few(shelf: SnapshotShelf) -> None:
    for version in range(1, 8):
        await shelf.publish(snapshot(version))
    kept = [version for version in range(1, 8) if await shelf.load(version) is not None]
    assert kept == [5, 6, 7]


async def test_the_same_version_is_replaced(shelf: SnapshotShelf) -> None:
    await shelf.publish(snapshot(1, b"first"))
    await shelf.publish(snapshot(1, b"second"))
    assert await shelf.load(1) == snapshot(1, b"second")


async def test_wait_returns_at_once_if_something_came_since_the_ticket(shelf: SnapshotShelf) -> None:
    ticket = await shelf.ticket()
    await shelf.publish(snapshot(4))
    newer = await asyncio.wait_for(shelf.wait(ticket, 60), PATIENCE)
    assert newer != ticket
    assert newer == await shelf.ticket()


async def test_wait_times_out_with_the_ticket_it_was_given(shelf: SnapshotShelf) -> None:
    await shelf.publish(snapshot(4))
    ticket = await shelf.ticket()
    assert await shelf.wait(ticket, 0.02) == ticket


async def test_all_who_wait_are_woken(shelf: SnapshotShelf) -> None:
    await shelf.publish(snapshot(1))
    ticket = await shelf.ticket()
    waiting = [asyncio.create_task(shelf.wait(ticket, 60)) for _ in range(10)]
    await asyncio.sleep(0.05)
    assert await shelf.mark(Mark.SERVED, 1) is MarkResult.DONE
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in waiting)
    await shelf.publish(snapshot(2))
    assert set(await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)) == {await shelf.ticket()}


@pytest.mark.parametrize("mark", [Mark.PIN, Mark.HOLD, Mark.PROMOTE])
async def test_a_mark_wakes_who_waits(shelf: SnapshotShelf, mark: Mark) -> None:
    await shelf.publish(snapshot(1))
    ticket = await shelf.ticket()
    waiting = asyncio.create_task(shelf.wait(ticket, 60))
    await shelf.mark(mark, 1)
    assert await asyncio.wait_for(waiting, PATIENCE) != ticket


async def test_a_follower_sees_the_last(shelf: SnapshotShelf) -> None:
    last = 100

    async def follow() -> int:
        seen, ticket = 0, "0-0"
        while seen < last:
            ticket = await shelf.wait(ticket, 60)
            loaded = await shelf.load()
            assert loaded is not None
            assert loaded.version >= seen
            seen = loaded.version
        return seen

    follower = asyncio.create_task(follow())
    for version in range(1, last + 1):
        await shelf.publish(snapshot(version))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(follower, PATIENCE) == last


async def kept(shelf: SnapshotShelf) -> list[int]:
    """The versions on the shelf; each of them can be loaded, and no other."""
    versions = [one.version for one in (await shelf.stock()).snapshots]
    assert [version for version in range(100) if await shelf.load(version) is not None] == versions
    return versions


async def publish_until(shelf: SnapshotShelf, last: int) -> None:
    for version in range((await shelf.newest_version() or 0) + 1, last + 1):
        await shelf.publish(snapshot(version))


async def test_the_stock_is_everything_but_the_blobs(shelf: SnapshotShelf) -> None:
    await publish_until(shelf, 4)
    stock = await shelf.stock()
    assert stock.snapshots == tuple(snapshot(version, b"") for version in (2, 3, 4))
    assert stock.marks == Marks()
    assert (stock.newest, stock.find(3), stock.find(1)) == (4, snapshot(3, b""), None)


@pytest.mark.parametrize("mark", [Mark.PIN, Mark.HOLD, Mark.PROMOTE, Mark.SERVED])
async def test_a_marked_version_stays(shelf: SnapshotShelf, mark: Mark) -> None:
    await publish_until(shelf, 2)
    assert await shelf.mark(mark, 2) is MarkResult.DONE
    await publish_until(shelf, 9)
    assert await kept(shelf) == [2, 7, 8, 9]


async def test_what_is_unpinned_goes_with_the_next_publication(shelf: SnapshotShelf) -> None:
    await publish_until(shelf, 1)
    await shelf.mark(Mark.PIN, 1)
    await publish_until(shelf, 5)
    assert await shelf.mark(Mark.UNPIN, 1) is MarkResult.DONE
    await publish_until(shelf, 6)
    assert await kept(shelf) == [4, 5, 6]
    assert await shelf.mark(Mark.UNPIN, 1) is MarkResult.ABSENT


async def test_a_promotion_keeps_its_version_until_something_later_is_served(shelf: SnapshotShelf) -> None:
    await publish_until(shelf, 3)
    await shelf.mark(Mark.SERVED, 1)
    await shelf.mark(Mark.PROMOTE, 2)
    assert (await shelf.stock()).marks == Marks(promoted=2, floor=3, served=1)
    await publish_until(shelf, 7)
    assert await kept(shelf) == [1, 2, 5, 6, 7]
    await shelf.mark(Mark.SERVED, 7)
    await publish_until(shelf, 8)
    assert await kept(shelf) == [6, 7, 8]


@pytest.mark.parametrize("mark", list(Mark))
async def test_what_is_not_there_cannot_be_marked(shelf: SnapshotShelf, mark: Mark) -> None:
    await publish_until(shelf, 1)
    before = await shelf.ticket()
    assert await shelf.mark(mark, 2) is MarkResult.ABSENT
    assert (await shelf.stock()).marks == Marks()
    assert await shelf.ticket() == before


async def test_marks_are_what_was_said_last(shelf: SnapshotShelf) -> None:
    await publish_until(shelf, 3)
    await shelf.mark(Mark.PROMOTE, 2)
    await shelf.mark(Mark.SERVED, 2)
    await shelf.mark(Mark.PIN, 1)
    await shelf.mark(Mark.PIN, 2)
    assert (await shelf.stock()).marks == Marks(frozenset({1, 2}), None, 2, 3, 2)
    await shelf.mark(Mark.HOLD, 2)
    assert (await shelf.stock()).marks == Marks(frozenset({1, 2}), held=2, served=2)
    await shelf.mark(Mark.UNPIN, 2)
    assert (await shelf.stock()).marks == Marks(frozenset({1}), served=2)


async def test_one_that_is_held_can_be_let_go_without_having_been_pinned(shelf: SnapshotShelf) -> None:
    await publish_until(shelf, 2)
    await shelf.mark(Mark.HOLD, 1)
    assert await shelf.mark(Mark.UNPIN, 2) is MarkResult.ABSENT
    assert await shelf.mark(Mark.UNPIN, 1) is MarkResult.DONE
    assert (await shelf.stock()).marks == Marks()


async def test_only_so_many_are_pinned(shelf: SnapshotShelf) -> None:
    for version in range(1, MOST_PINNED + 1):
        await shelf.publish(snapshot(version))
        assert await shelf.mark(Mark.PIN, version) is MarkResult.DONE
    await publish_until(shelf, MOST_PINNED + 1)
    assert await shelf.mark(Mark.PIN, MOST_PINNED + 1) is MarkResult.FULL
    assert await shelf.mark(Mark.PIN, 1) is MarkResult.DONE
    await shelf.mark(Mark.UNPIN, 1)
    assert await shelf.mark(Mark.PIN, MOST_PINNED + 1) is MarkResult.DONE


async def test_a_closed_shelf_refuses(shelf: SnapshotShelf) -> None:
    await shelf.publish(snapshot(1))
    waiting = asyncio.create_task(shelf.wait(await shelf.ticket(), 60))
    await asyncio.sleep(0.02)
    await shelf.close()
    with pytest.raises(MailboxError):
        await asyncio.wait_for(waiting, PATIENCE)
    with pytest.raises(MailboxError):
        await shelf.load()
    with pytest.raises(MailboxError):
        await shelf.publish(snapshot(2))
