"""Whole exchanges for tests: real servers on loopback, and the updates that go between them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import torch

from concord.apps.connections import ConnectionLimits
from concord.apps.door import open_door
from concord.apps.exchange import ExchangeService, ExchangeSettings, create_app, create_exchange
from concord.apps.serve import Server, bind
from concord.consensus.algorithm import EdgeTerms, PartLayout
from concord.mailbox.memory import MemoryMailbox
from concord.settings import Secret, Settings
from concord.site.edges import NOTE_EDGES, Edge, EdgeTable
from concord.site.journey import Journey
from concord.site.ports import Box, Mailbox, Slot
from concord.transport.identity import Trust
from concord.transport.lane import CourierSettings, EdgeRoute
from concord.transport.rates import RateLimits
from concord.transport.tls import SiteTls
from concord.wire.codec import encode
from concord.wire.messages import Header, Stamp, Update

SECRET = Secret(b"a secret of the test federation")
TLS = ssl.create_default_context()
"""Shared, because loading the certificates anew for every client takes longer than most tests."""
TERMS = EdgeTerms(penalty=0.5, averaging=1.0)
QUICK = CourierSettings(
    pull_wait=5.0,
    cool_down=0.1,
    retry_base=0.01,
    retry_cap=0.05,
    refused_base=0.05,
    refused_cap=0.2,
    mark_interval=0.05,
)


def edge_table(*neighbours: str, size: int = 8, epoch: int = 1) -> EdgeTable:
    """The table of a site with these neighbours and a model of `size` parameters."""
    return EdgeTable(
        federation="test",
        fingerprint="f00d",
        algorithm="ecl",
        incarnation=1,
        layout={"message": PartLayout("float32", size)},
        edges={neighbour: Edge(epoch, TERMS) for neighbour in neighbours},
    )


def header(sender: str, receiver: str, stamp: Stamp) -> Header:
    """A header that fits `edge_table`."""
    return Header(
        federation="test",
        fingerprint="f00d",
        sender=sender,
        receiver=receiver,
        stamp=stamp,
        step=1,
        round=1,
        algorithm="ecl",
        penalty=TERMS.penalty,
        averaging=TERMS.averaging,
        sent_at=time.time(),
    )


def update_slot(
    sender: str,
    receiver: str,
    sequence: int,
    *,
    size: int = 8,
    incarnation: int = 1,
    epoch: int = 1,
    value: float = 1.0,
    **changes: object,
) -> Slot:
    """An encoded update; `changes` replace fields of its header."""
    stamp = Stamp(epoch, incarnation, sequence)
    fields = replace(header(sender, receiver, stamp), **changes)
    return Slot(stamp, encode(Update(fields, {"message": torch.full((size,), value)})))


@dataclass(frozen=True, slots=True)
class Site:
    """One exchange that answers at `url`, and to neighbours at `door`."""

    name: str
    url: str
    mailbox: Mailbox
    service: ExchangeService
    door: str
    server: Server


@asynccontextmanager
async def exchange_site(
    name: str,
    *neighbours: str,
    routes: tuple[EdgeRoute, ...] = (),
    mailbox: Mailbox | None = None,
    trust: Trust = SECRET,
    size: int = 8,
    port: int = 0,
    courier: CourierSettings = QUICK,
    max_update_bytes: int | None = None,
    reroutes: asyncio.Queue[tuple[EdgeRoute, ...]] | None = None,
    tls: SiteTls | None = None,
    door_port: int = 0,
    limits: ConnectionLimits | None = None,
    rates: RateLimits | None = None,
) -> AsyncIterator[Site]:
    """A site whose trainer has published its edges, served from this event loop."""
    mailbox = mailbox or MemoryMailbox()
    if neighbours:
        await mailbox.write_note(NOTE_EDGES, edge_table(*neighbours, size=size).to_json())
    settings = ExchangeSettings(
        name,
        trust,
        routes,
        None if reroutes is None else _each(reroutes),
        max_update_bytes,
        timeout=2.0,
        tls=tls or TLS,
        look_interval=0.02,
        courier=courier,
        rates=rates or RateLimits(),
    )
    service = create_exchange(mailbox, settings, journey=Journey("test", name))
    turned_away = service.state.turned_away
    door = open_door(service.door, service.tls, Settings(exchange_port=door_port), service.release, turned_away)
    listener = bind("127.0.0.1", port)
    server = Server(create_app(service, door), listener, service.release, limits=limits, turned_away=turned_away)
    async with server.running():
        yield Site(name, server.url, mailbox, service, server.url if door is None else door.url, server)


async def _each(queue: asyncio.Queue[tuple[EdgeRoute, ...]]) -> AsyncIterator[tuple[EdgeRoute, ...]]:
    while True:
        yield await queue.get()


async def publish(site: Site, receiver: str, sequence: int, **fields: object) -> Slot:
    """What a trainer does after a round: lay an update in its own outbox."""
    slot = update_slot(site.name, receiver, sequence, **fields)
    await site.mailbox.put(Box.OUTBOX, receiver, slot)
    return slot


async def received(site: Site, sender: str, stamp: Stamp, timeout: float = 5.0) -> Slot:
    """The slot from `sender` once it is at least as new as `stamp`; TimeoutError if it is not in time."""
    async with asyncio.timeout(timeout):
        ticket = await site.mailbox.ticket(Box.INBOX)
        while True:
            slot = await site.mailbox.read(Box.INBOX, sender)
            if slot is not None and slot.stamp >= stamp:
                return slot
            ticket = await site.mailbox.wait(Box.INBOX, ticket, timeout)


async def eventually(holds: Callable[[], bool], timeout: float = 5.0) -> None:
    """Return once something that announces itself to nobody holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(timeout):
        while not holds():
            await asyncio.sleep(0.005)


def free_port() -> int:
    """A port that nothing listens on now."""
    with bind("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])
