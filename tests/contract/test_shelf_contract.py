"""What every shelf of snapshots does, in memory and in Redis alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from concord.errors import MailboxError
from concord.serving.snapshots import MemoryShelf, RedisShelf
from concord.site.ports import Snapshot, SnapshotShelf

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
    )


async def test_an_empty_shelf(shelf: SnapshotShelf) -> None:
    assert await shelf.newest_version() is None
    assert await shelf.load() is None
    assert await shelf.load(1) is None
    assert await shelf.wait(0, 0.02) is None


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


async def test_wait_returns_at_once_if_there_is_something_newer(shelf: SnapshotShelf) -> None:
    await shelf.publish(snapshot(4))
    assert await asyncio.wait_for(shelf.wait(3, 60), PATIENCE) == 4
    assert await shelf.wait(3, 0) == 4


async def test_wait_times_out_with_what_there_is(shelf: SnapshotShelf) -> None:
    await shelf.publish(snapshot(4))
    assert await shelf.wait(4, 0.02) == 4


async def test_all_who_wait_are_woken(shelf: SnapshotShelf) -> None:
    await shelf.publish(snapshot(1))
    waiting = [asyncio.create_task(shelf.wait(1, 60)) for _ in range(10)]
    await asyncio.sleep(0.05)
    await shelf.publish(snapshot(1, b"no newer"))
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in waiting)
    await shelf.publish(snapshot(2))
    assert await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE) == [2] * 10


async def test_a_follower_sees_the_last(shelf: SnapshotShelf) -> None:
    last = 100

    async def follow() -> int:
        seen = 0
        while seen < last:
            seen = await shelf.wait(seen, 60) or 0
            loaded = await shelf.load()
            assert loaded is not None
            assert loaded.version >= seen
        return seen

    follower = asyncio.create_task(follow())
    for version in range(1, last + 1):
        await shelf.publish(snapshot(version))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(follower, PATIENCE) == last


async def test_a_closed_shelf_refuses(shelf: SnapshotShelf) -> None:
    await shelf.publish(snapshot(1))
    waiting = asyncio.create_task(shelf.wait(1, 60))
    await asyncio.sleep(0.02)
    await shelf.close()
    with pytest.raises(MailboxError):
        await asyncio.wait_for(waiting, PATIENCE)
    with pytest.raises(MailboxError):
        await shelf.load()
    with pytest.raises(MailboxError):
        await shelf.publish(snapshot(2))
