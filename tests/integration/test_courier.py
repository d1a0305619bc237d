"""Couriers between real servers: delivery, outages, pull-only edges, lost mailboxes."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis import asyncio as redis

from concord.mailbox.redis import RedisMailbox
from concord.site.edges import NOTE_EDGES, NOTE_FLOOR
from concord.site.ports import Box
from concord.transport.circuit import CircuitState
from concord.transport.lane import EdgeRoute
from concord.transport.traffic import EdgeTraffic
from concord.wire.messages import Stamp
from exchange_sites import (
    QUICK,
    Site,
    edge_table,
    eventually,
    exchange_site,
    free_port,
    publish,
    received,
    update_slot,
)

pytestmark = pytest.mark.anyio


def push_to(neighbour: str, port: int) -> tuple[EdgeRoute, ...]:
    return (EdgeRoute(neighbour, f"http://127.0.0.1:{port}", push=True, pull=False),)


def pull_from(neighbour: str, port: int) -> tuple[EdgeRoute, ...]:
    return (EdgeRoute(neighbour, f"http://127.0.0.1:{port}", push=False, pull=True),)


def traffic(site: Site, neighbour: str) -> EdgeTraffic:
    return site.service.state.edges[neighbour]


async def test_updates_go_both_ways_by_push() -> None:
    ports = free_port(), free_port()
    async with (
        exchange_site("N1", "N2", port=ports[0], routes=push_to("N2", ports[1])) as one,
        exchange_site("N2", "N1", port=ports[1], routes=push_to("N1", ports[0])) as two,
    ):
        for sequence in range(1, 6):
            there = await publish(one, "N2", sequence)
            back = await publish(two, "N1", sequence)
            assert await received(two, "N1", there.stamp) == there
            assert await received(one, "N2", back.stamp) == back
        await eventually(lambda: traffic(one, "N2").delivered == Stamp(1, 1, 5))
        assert traffic(one, "N2").delivery.count == traffic(one, "N2").sent


async def test_after_an_outage_only_the_newest_is_sent() -> None:
    port = free_port()
    async with exchange_site("N1", "N2", routes=push_to("N2", port)) as one:
        for sequence in range(1, 6):
            await publish(one, "N2", sequence)
            await asyncio.sleep(0.02)
        await eventually(lambda: traffic(one, "N2").circuit is CircuitState.OPEN)
        newest = await publish(one, "N2", 6)
        async with exchange_site("N2", "N1", port=port) as two:
            assert await received(two, "N1", newest.stamp) == newest
            assert traffic(two, "N1").received == 1
            await eventually(lambda: traffic(one, "N2").circuit is CircuitState.CLOSED)


async def test_a_dead_neighbour_costs_a_few_requests_and_hinders_nobody() -> None:
    ports = free_port(), free_port()
    routes = push_to("N2", ports[0]) + push_to("N3", ports[1])
    async with (
        exchange_site("N3", "N1", port=ports[1]) as three,
        exchange_site("N1", "N2", "N3", routes=routes) as one,
    ):
        started = time.monotonic()
        for sequence in range(1, 60):
            await publish(one, "N2", sequence)
            slot = await publish(one, "N3", sequence)
            assert await received(three, "N1", slot.stamp) == slot
        elapsed = time.monotonic() - started
        # Both ways of the dead edge try until its circuit opens, and once per cool-down from then on.
        assert traffic(one, "N2").attempts <= QUICK.threshold + 1 + elapsed / QUICK.cool_down + 1
        assert traffic(one, "N3").failures == 0


async def test_two_sites_of_which_one_can_only_call_exchange_both_ways() -> None:
    port = free_port()
    both = (EdgeRoute("N1", f"http://127.0.0.1:{port}", push=True, pull=True),)
    nobody = (EdgeRoute("N2", None, push=False, pull=False),)
    async with (
        exchange_site("N1", "N2", port=port, routes=nobody) as one,
        exchange_site("N2", "N1", routes=both) as two,
    ):
        for sequence in range(1, 6):
            there = await publish(one, "N2", sequence)
            back = await publish(two, "N1", sequence)
            assert await received(two, "N1", there.stamp, timeout=2.0) == there
            assert await received(one, "N2", back.stamp, timeout=2.0) == back


async def test_updates_go_both_ways_by_pull() -> None:
    ports = free_port(), free_port()
    async with (
        exchange_site("N1", "N2", port=ports[0], routes=pull_from("N2", ports[1])) as one,
        exchange_site("N2", "N1", port=ports[1], routes=pull_from("N1", ports[0])) as two,
    ):
        for sequence in range(1, 6):
            there = await publish(one, "N2", sequence)
            back = await publish(two, "N1", sequence)
            assert await received(two, "N1", there.stamp, timeout=2.0) == there
            assert await received(one, "N2", back.stamp, timeout=2.0) == back
        assert traffic(one, "N2").sent == 0


async def test_a_refused_update_is_reported_and_not_hammered() -> None:
    port = free_port()
    async with (
        exchange_site("N2", "N1", port=port),
        exchange_site("N1", "N2", routes=push_to("N2", port)) as one,
    ):
        await publish(one, "N2", 1, epoch=3)
        await eventually(lambda: traffic(one, "N2").rejected["epoch"] > 0)
        await asyncio.sleep(0.3)
        assert traffic(one, "N2").rejected["epoch"] <= 6
        assert "edge epoch" in (traffic(one, "N2").last_error or "")
        assert traffic(one, "N2").circuit is CircuitState.CLOSED


async def test_a_neighbour_that_waits_for_its_trainer_gets_the_update_later() -> None:
    port = free_port()
    async with (
        exchange_site("N2", port=port) as two,
        exchange_site("N1", "N2", routes=push_to("N2", port)) as one,
    ):
        slot = await publish(one, "N2", 1)
        await eventually(lambda: traffic(one, "N2").failures > 0)
        async with exchange_site("N2", "N1", mailbox=two.mailbox):
            pass  # publishes the edge table into N2's mailbox
        assert await received(two, "N1", slot.stamp) == slot


async def test_four_megabytes_go_through() -> None:
    port = free_port()
    async with (
        exchange_site("N2", "N1", port=port, size=1_000_000) as two,
        exchange_site("N1", "N2", routes=push_to("N2", port)) as one,
    ):
        slot = await publish(one, "N2", 1, size=1_000_000)
        assert await received(two, "N1", slot.stamp) == slot


async def test_a_site_that_lost_its_state_learns_of_its_earlier_life() -> None:
    port = free_port()
    async with (
        exchange_site("N2", "N1", port=port) as two,
        exchange_site("N1", "N2", routes=push_to("N2", port)) as one,
    ):
        await two.mailbox.put(Box.INBOX, "N1", update_slot("N1", "N2", 900, incarnation=4))
        await publish(one, "N2", 1)
        await eventually(lambda: traffic(one, "N2").delivered is not None)
        assert await one.mailbox.read_note(NOTE_FLOOR) == "4"


async def test_what_neighbours_hold_comes_back_after_the_mailbox_was_emptied(redis_url: str, federation: str) -> None:
    ports = free_port(), free_port()
    mailbox = RedisMailbox(redis_url, federation, "N1")
    async with (
        exchange_site("N1", "N2", port=ports[0], mailbox=mailbox, routes=push_to("N2", ports[1])) as one,
        exchange_site("N2", "N1", port=ports[1], routes=push_to("N1", ports[0])) as two,
    ):
        theirs = await publish(two, "N1", 7)
        ours = await publish(one, "N2", 3)
        await received(one, "N2", theirs.stamp)
        await received(two, "N1", ours.stamp)
        await empty(redis_url, mailbox.keys.prefix)
        assert await received(one, "N2", theirs.stamp) == theirs
        assert one.service.state.emptied == 1
        # The trainer lays the same update out again, and it goes to the neighbour again.
        await mailbox.put(Box.OUTBOX, "N2", ours)
        await eventually(lambda: traffic(two, "N1").known >= 1)
    await mailbox.close()


async def empty(url: str, prefix: str) -> None:
    """What a restart of a Redis without persistence does to one site."""
    client = redis.from_url(url)
    names = [name async for name in client.scan_iter(match=f"{prefix.replace('[', '?')}*")]
    await client.delete(*names)
    await client.aclose()


async def test_stopping_is_prompt_with_pulls_held_at_both_ends() -> None:
    ports = free_port(), free_port()
    async with (
        exchange_site("N1", "N2", port=ports[0], routes=pull_from("N2", ports[1])) as one,
        exchange_site("N2", "N1", port=ports[1], routes=pull_from("N1", ports[0])),
    ):
        await publish(one, "N2", 1)
        await asyncio.sleep(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 1.5


async def test_edges_come_and_go_while_others_are_not_disturbed() -> None:
    ports = free_port(), free_port()
    reroutes: asyncio.Queue[tuple[EdgeRoute, ...]] = asyncio.Queue()
    async with (
        exchange_site("N2", "N1", port=ports[0]) as two,
        exchange_site("N3", "N1", port=ports[1]) as three,
        exchange_site("N1", "N2", routes=push_to("N2", ports[0]), reroutes=reroutes) as one,
    ):
        first = await publish(one, "N2", 1)
        assert await received(two, "N1", first.stamp) == first
        await one.mailbox.write_note(NOTE_EDGES, edge_table("N2", "N3").to_json())
        reroutes.put_nowait((*push_to("N2", ports[0]), *push_to("N3", ports[1])))
        there = await publish(one, "N3", 1)
        assert await received(three, "N1", there.stamp) == there
        assert traffic(one, "N2").attempts <= 2, "its lane goes on as it was"
        reroutes.put_nowait(push_to("N3", ports[1]))
        await eventually(lambda: set(one.service.state.edges) == {"N3"})
        again = await publish(one, "N3", 2)
        await publish(one, "N2", 2)
        assert await received(three, "N1", again.stamp) == again
        slot = await two.mailbox.read(Box.INBOX, "N1")
        assert slot == first, "nothing is delivered over an edge that is gone"


async def test_a_neighbour_that_moved_is_found_at_its_new_address() -> None:
    port = free_port()
    reroutes: asyncio.Queue[tuple[EdgeRoute, ...]] = asyncio.Queue()
    async with exchange_site("N1", "N2", routes=push_to("N2", free_port()), reroutes=reroutes) as one:
        newest = await publish(one, "N2", 1)
        await eventually(lambda: traffic(one, "N2").failures > 0)
        async with exchange_site("N2", "N1", port=port) as two:
            reroutes.put_nowait(push_to("N2", port))
            assert await received(two, "N1", newest.stamp) == newest
