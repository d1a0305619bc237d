"""What a mailbox and a shelf in Redis do when Redis restarts, hangs, forgets, is full or is not there."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from concord.errors import JobError, MailboxError
from concord.mailbox.redis import RedisMailbox
from concord.mailbox.server import EmbeddedServer, ServerOptions
from concord.redislink import LinkOptions
from concord.serving.snapshots import RedisShelf
from concord.site.ports import Box, Mark, MarkResult, Marks, Slot, Snapshot
from concord.wire.messages import Stamp

pytestmark = pytest.mark.anyio

PATIENCE = 5.0
HASTY = LinkOptions(timeout=0.2, connections=4, waiters=4)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="concord-") as path:
        yield Path(path)


@pytest.fixture
def server(directory: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own, to be ill-treated."""
    with EmbeddedServer(directory) as running:
        yield running


@pytest.fixture
async def mailbox(server: EmbeddedServer) -> AsyncIterator[RedisMailbox]:
    made = RedisMailbox(server.url, "digits", "N1", options=HASTY)
    yield made
    await made.close()


@pytest.fixture
async def redis(server: EmbeddedServer) -> AsyncIterator[Redis]:
    """A second client, to look and to do harm."""
    async with Redis.from_url(server.url, protocol=2) as client:
        yield client


def slot(sequence: int, blob: bytes = b"update") -> Slot:
    return Slot(Stamp(1, 1, sequence), blob)


def snapshot(version: int, blob: bytes) -> Snapshot:
    return Snapshot(version, version, version, "f00d", {}, 0.0, blob)


async def test_goes_on_by_itself_after_a_restart(mailbox: RedisMailbox, server: EmbeddedServer) -> None:
    await asyncio.gather(*(mailbox.put(Box.INBOX, f"N{number}", slot(1)) for number in range(8)))
    server.kill()
    with pytest.raises(MailboxError):
        await mailbox.put(Box.INBOX, "N2", slot(2))
    with pytest.raises(MailboxError):
        await mailbox.wait(Box.INBOX, "0-0", 60)
    server.start()
    receipts = await asyncio.gather(*(mailbox.put(Box.INBOX, f"N{number}", slot(3)) for number in range(8)))
    assert all(receipt.stored for receipt in receipts)
    assert await mailbox.read(Box.INBOX, "N2") == slot(3)


async def test_the_first_call_after_an_unnoticed_restart_works(mailbox: RedisMailbox, server: EmbeddedServer) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(1))
    server.kill()
    server.start()
    assert (await mailbox.put(Box.INBOX, "N2", slot(1))).stored


async def test_who_waits_is_told_of_a_crash_and_may_wait_again(mailbox: RedisMailbox, server: EmbeddedServer) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(9))
    ticket = await mailbox.ticket(Box.INBOX)
    waiting = asyncio.create_task(mailbox.wait(Box.INBOX, ticket, 60))
    await asyncio.sleep(0.02)
    server.kill()
    with pytest.raises(MailboxError):
        await asyncio.wait_for(waiting, PATIENCE)
    server.start()
    waiting = asyncio.create_task(mailbox.wait(Box.INBOX, ticket, 60))
    await asyncio.sleep(0.02)
    assert (await mailbox.put(Box.INBOX, "N2", slot(1))).stored
    assert await asyncio.wait_for(waiting, PATIENCE) != ticket


async def test_a_cut_connection_is_made_anew(mailbox: RedisMailbox, redis: Redis) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(1))
    await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await mailbox.read(Box.INBOX, "N2") == slot(1)


async def test_a_question_that_the_servers_rules_forbid_is_no_failure(mailbox: RedisMailbox, redis: Redis) -> None:
    assert (await mailbox.link.memory())[0] > 0
    await redis.execute_command("ACL", "SETUSER", "default", "-info")
    with pytest.raises(MailboxError, match="INFO memory"):
        await mailbox.link.memory()
    assert (await mailbox.put(Box.INBOX, "N2", slot(1))).stored
    assert mailbox.link.state.failures == 0


async def test_forgotten_scripts_are_sent_again(mailbox: RedisMailbox, redis: Redis) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(1))
    await redis.script_flush()
    assert (await mailbox.put(Box.INBOX, "N2", slot(2))).stored
    await redis.script_flush()
    assert await mailbox.read(Box.INBOX, "N2") == slot(2)


async def test_a_hanging_server_is_given_up_soon(mailbox: RedisMailbox, server: EmbeddedServer) -> None:
    await mailbox.put(Box.INBOX, "N2", slot(1))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(MailboxError):
            await mailbox.read(Box.INBOX, "N2")
        with pytest.raises(MailboxError):
            await mailbox.wait(Box.INBOX, "0-0", 0.1)
        assert time.monotonic() - begun < 2.0
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert await mailbox.read(Box.INBOX, "N2") == slot(1)


async def test_memory_does_not_grow_with_traffic(mailbox: RedisMailbox, redis: Redis) -> None:
    async def used(first: int) -> int:
        for sequence in range(first, first + 2000):
            for box in Box:
                await mailbox.put(box, f"N{sequence % 3}", slot(sequence, bytes(4096)))
        return int((await redis.info("memory"))["used_memory"])

    settled = await used(1)
    assert abs(await used(10_000) - settled) < 64 * 1024


async def test_every_key_is_under_the_sites_prefix_and_in_one_cluster_slot(
    mailbox: RedisMailbox, server: EmbeddedServer, redis: Redis
) -> None:
    shelf = RedisShelf(server.url, "digits", "N1")
    await mailbox.put(Box.INBOX, "N2", slot(1))
    await mailbox.write_note("status", "{}")
    await shelf.publish(snapshot(1, b"model"))
    await shelf.close()
    assert {key.decode() for key in await redis.keys()} == {
        "concord:{digits:N1}:blob:inbox:N2",
        "concord:{digits:N1}:inbox:N2",
        "concord:{digits:N1}:ledger",
        "concord:{digits:N1}:news:inbox",
        "concord:{digits:N1}:news:snapshots",
        "concord:{digits:N1}:note:status",
        "concord:{digits:N1}:snapshot:1",
        "concord:{digits:N1}:snapshots",
    }


async def test_a_large_update_that_is_refused_leaves_nothing_behind(mailbox: RedisMailbox, redis: Redis) -> None:
    large = b"x" * 200_000
    await mailbox.put(Box.INBOX, "N2", slot(2, large))
    keys = await redis.keys()
    assert not (await mailbox.put(Box.INBOX, "N2", slot(1, large))).stored
    assert sorted(await redis.keys()) == sorted(keys)


async def test_sites_in_one_redis_are_apart(mailbox: RedisMailbox, server: EmbeddedServer) -> None:
    other = RedisMailbox(server.url, "digits", "N2", options=HASTY)
    await mailbox.put(Box.INBOX, "N3", slot(1))
    assert await other.read(Box.INBOX, "N3") is None
    await other.close()


async def test_another_process_is_woken(mailbox: RedisMailbox, server: EmbeddedServer) -> None:
    other = RedisMailbox(server.url, "digits", "N1", options=HASTY)
    ticket = await other.ticket(Box.INBOX)
    waiting = asyncio.create_task(other.wait(Box.INBOX, ticket, 60))
    await asyncio.sleep(0.02)
    await mailbox.put(Box.INBOX, "N2", slot(1))
    assert await asyncio.wait_for(waiting, PATIENCE) == await mailbox.ticket(Box.INBOX)
    await other.close()


async def test_cancelled_waits_leave_no_connections(mailbox: RedisMailbox, redis: Redis) -> None:
    for _ in range(20):
        waiting = [asyncio.create_task(mailbox.wait(Box.INBOX, "0-0", 60)) for _ in range(3)]
        await asyncio.sleep(0.005)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    await mailbox.put(Box.INBOX, "N2", slot(1))
    assert len(await redis.client_list()) <= HASTY.connections + HASTY.waiters + 1


async def test_more_who_wait_than_connections_miss_nothing(mailbox: RedisMailbox) -> None:
    waiting = [asyncio.create_task(mailbox.wait(Box.INBOX, "0-0", 60)) for _ in range(HASTY.waiters * 3)]
    await asyncio.sleep(0.02)
    await mailbox.put(Box.INBOX, "N2", slot(1))
    tickets = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert set(tickets) == {await mailbox.ticket(Box.INBOX)}


async def test_a_full_redis_refuses_and_keeps_what_it_has(directory: Path) -> None:
    with EmbeddedServer(directory, ServerOptions(max_memory_bytes=6 << 20)) as server:
        mailbox = RedisMailbox(server.url, "digits", "N1")
        await mailbox.put(Box.INBOX, "N2", slot(1))
        puts = [mailbox.put(Box.OUTBOX, f"N{number}", slot(1, bytes(2 << 20))) for number in range(4)]
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, MailboxError)]
        assert refused
        assert all("full" in str(error) for error in refused)
        assert await mailbox.read(Box.INBOX, "N2") == slot(1)
        await mailbox.close()


async def test_in_a_full_redis_the_oldest_snapshot_goes_first(directory: Path) -> None:
    with EmbeddedServer(directory, ServerOptions(max_memory_bytes=8 << 20)) as server:
        shelf = RedisShelf(server.url, "digits", "N1", keep=10)
        for version in range(1, 8):
            await shelf.publish(snapshot(version, bytes(1 << 20)))
        kept = [version for version in range(1, 8) if await shelf.load(version) is not None]
        assert kept == list(range(kept[0], 8))
        assert 1 < kept[0] <= 7
        with pytest.raises(MailboxError, match="full"):
            await shelf.publish(snapshot(8, bytes(9 << 20)))
        assert await shelf.newest_version() == 7
        await shelf.close()


async def test_in_a_full_redis_neither_pinned_nor_served_nor_held_snapshots_go(directory: Path) -> None:
    with EmbeddedServer(directory, ServerOptions(max_memory_bytes=8 << 20)) as server:
        shelf = RedisShelf(server.url, "digits", "N1", keep=10)
        for version in range(1, 5):
            await shelf.publish(snapshot(version, bytes(1 << 20)))
        for version, mark in ((1, Mark.SERVED), (2, Mark.PIN), (3, Mark.HOLD)):
            assert await shelf.mark(mark, version) is MarkResult.DONE
        for version in range(5, 20):
            await shelf.publish(snapshot(version, bytes(1 << 20)))
        kept = [one.version for one in (await shelf.stock()).snapshots]
        assert kept[:3] == [1, 2, 3]
        assert kept[3:] == list(range(kept[3], 20))
        with pytest.raises(MailboxError, match="full"):
            await shelf.publish(snapshot(20, bytes(5 << 20)))
        assert [one.version for one in (await shelf.stock()).snapshots] == [1, 2, 3, 19]
        await shelf.close()


async def test_marks_survive_a_restart_of_redis_and_of_everybody(directory: Path) -> None:
    with EmbeddedServer(directory, ServerOptions(append_only=True)) as server:
        trainer, inference = (RedisShelf(server.url, "digits", "N1", keep=2) for _ in range(2))
        for version in (1, 2):
            await trainer.publish(snapshot(version, b"model"))
        await inference.mark(Mark.PIN, 1)
        await inference.mark(Mark.HOLD, 2)
        await trainer.close()
        await inference.close()
        await asyncio.sleep(1.1)  # what is a second old is on the disk
        server.kill()
        server.start()
        trainer = RedisShelf(server.url, "digits", "N1", keep=2)
        for version in (3, 4, 5):
            await trainer.publish(snapshot(version, b"model"))
        stock = await trainer.stock()
        assert [one.version for one in stock.snapshots] == [1, 2, 4, 5]
        assert stock.marks == Marks(frozenset({1}), held=2)
        await trainer.close()


async def test_what_is_written_to_disk_survives_a_crash(directory: Path) -> None:
    with EmbeddedServer(directory, ServerOptions(append_only=True)) as server:
        mailbox = RedisMailbox(server.url, "digits", "N1")
        await mailbox.put(Box.INBOX, "N2", slot(7))
        server.kill()
        server.start()
        assert await mailbox.read(Box.INBOX, "N2") == slot(7)
        await mailbox.close()


async def test_no_server_is_a_mailbox_error(directory: Path) -> None:
    mailbox = RedisMailbox(f"unix://{directory}/none.sock", "digits", "N1")
    shelf = RedisShelf(f"unix://{directory}/none.sock", "digits", "N1")
    with pytest.raises(MailboxError, match=r"none\.sock"):
        await mailbox.ticket(Box.INBOX)
    with pytest.raises(MailboxError):
        await shelf.newest_version()
    with pytest.raises(MailboxError):
        await shelf.publish(snapshot(1, b""))
    await mailbox.close()
    await shelf.close()


async def test_a_wrong_url_is_a_job_error() -> None:
    with pytest.raises(JobError, match="Redis URL"):
        RedisMailbox("localhost:6379", "digits", "N1")
