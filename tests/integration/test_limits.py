"""Callers that are slow, silent, endless or many, over real sockets: each is shown out, and a neighbour is served."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Response

from certified import authority, context, issue, lay
from concord.apps.connections import ConnectionLimits
from concord.apps.serve import Server, bind
from concord.sealed import digest
from concord.settings import Secret
from concord.site.ports import Box
from concord.transport.http import Busy, Delivered, NeighbourClient, Refusal
from concord.transport.identity import INSECURE, Signer, Trust
from concord.transport.rates import RateLimits
from concord.transport.tls import SiteTls
from exchange_sites import SECRET, TLS, Site, eventually, exchange_site, update_slot

pytestmark = pytest.mark.anyio

SHORT = ConnectionLimits(
    connections=12,
    per_address=8,
    handshake_seconds=0.3,
    head_seconds=0.3,
    body_seconds=0.3,
    body_rate=4096,
    answer_seconds=0.3,
    linger_bytes=1 << 20,
    linger_seconds=0.3,
)
PATIENCE = 5.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops: uvloop is what services run on, asyncio what its promises are measured against."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with exchange_site("N1", "N2", "N3", limits=SHORT, size=100_000) as site:
        yield site


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Connection]:
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def head(*lines: str, path: str = "/v1/inbox/N2", method: str = "PUT") -> bytes:
    claim = Signer("N2", SECRET).headers("N1", method, path, digest(b""))
    fields = [f"{name}: {value}" for name, value in claim.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: n1", *fields, *lines, "", ""]).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and the rest until the server hangs up."""
    async with asyncio.timeout(PATIENCE):
        status = await reader.readline()
        return int(status.split()[1]) if status else 0, await reader.read()


@asynccontextmanager
async def served(site: Site) -> AsyncIterator[None]:
    """A neighbour pushes all the time meanwhile; each push is stored, and none takes long."""
    client = NeighbourClient(Signer("N3", SECRET), 2.0, TLS)
    seconds: list[float] = []

    async def push() -> None:
        while True:
            started = time.monotonic()
            slot = update_slot("N3", "N1", len(seconds) + 1, size=100_000)
            assert await client.push(site.url, "N1", slot) == Delivered(slot.stamp)
            seconds.append(time.monotonic() - started)
            await asyncio.sleep(0.005)

    pushing = asyncio.create_task(push())
    try:
        await eventually(lambda: bool(seconds) or pushing.done())
        before = len(seconds)
        yield
        await eventually(lambda: len(seconds) > before + 3 or pushing.done())
        assert not pushing.done()
    finally:
        pushing.cancel()
        await asyncio.wait((pushing,))
        await client.close()
    assert max(seconds) < 1.0


def turned_away(site: Site) -> dict[str, int]:
    return dict(site.service.state.turned_away)


async def test_a_connection_that_sends_nothing_is_closed(site: Site) -> None:
    async with served(site), opened(site.url) as (reader, _):
        assert await answer(reader) == (0, b"")
    assert turned_away(site) == {"silent": 1}


async def test_headers_that_come_slowly_are_not_waited_for(site: Site) -> None:
    async with served(site), opened(site.url) as (reader, writer):
        said = asyncio.create_task(answer(reader))
        for byte in head():
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if said.done():
                break
        status, body = await said
    assert status == 408
    assert b"took too long" in body
    assert turned_away(site) == {"slow": 1}


async def test_nothing_but_line_ends_between_requests_is_not_waited_for(site: Site) -> None:
    async with opened(site.url) as (reader, writer):
        writer.write(head(method="GET", path="/healthz"))
        assert b"200" in await reader.readline()
        said = asyncio.create_task(reader.read())
        while not said.done():
            writer.write(b"\r\n")
            await asyncio.sleep(0.05)
        assert b"408 Request Timeout" in await said


async def test_a_body_that_comes_slowly_is_not_waited_for(site: Site) -> None:
    async with served(site), opened(site.url) as (reader, writer):
        writer.write(head("content-length: 400000"))
        said = asyncio.create_task(answer(reader))
        while not said.done():
            writer.write(b"x")
            await asyncio.sleep(0.02)
        assert (await said)[0] == 408
    assert turned_away(site) == {"slow": 1}


async def test_a_body_that_comes_steadily_may_take_longer(site: Site) -> None:
    slot = update_slot("N2", "N1", 1, size=100_000)
    claim = Signer("N2", SECRET).headers("N1", "PUT", "/v1/inbox/N2", digest(slot.blob))
    lines = [f"{name}: {value}" for name, value in claim.items()]
    request = ["PUT /v1/inbox/N2 HTTP/1.1", "host: n1", *lines, f"content-length: {len(slot.blob)}", "", ""]
    started = time.monotonic()
    async with opened(site.url) as (reader, writer):
        writer.write("\r\n".join(request).encode())
        for begin in range(0, len(slot.blob), 20_000):
            writer.write(slot.blob[begin : begin + 20_000])
            await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE):
            assert b"204" in await reader.readline()
    assert time.monotonic() - started > 3 * SHORT.body_seconds


async def test_a_body_longer_than_announced_is_no_second_request(site: Site) -> None:
    async with served(site), opened(site.url) as (reader, writer):
        writer.write(head("content-length: 4") + b"four" + b"and more of it\r\n\r\n")
        status, rest = await answer(reader)
    assert status in (400, 422)
    assert b"400 Bad Request" in rest or status == 400
    assert turned_away(site) == {"malformed": 1}


async def test_chunks_without_end_are_cut_off(site: Site) -> None:
    async with served(site), opened(site.url) as (reader, writer):
        writer.write(head("transfer-encoding: chunked"))
        said = asyncio.create_task(reader.readline())
        assert await _flood(writer, b"10000\r\n" + b"x" * 0x10000 + b"\r\n") < 64 << 20
        assert b" 413 " in await said
    assert turned_away(site) == {"long": 1}


async def test_a_body_without_end_where_none_belongs_is_cut_off(site: Site) -> None:
    async with served(site), opened(site.url) as (_, writer):
        writer.write(head("transfer-encoding: chunked", method="GET", path="/v1/status"))
        assert await _flood(writer, b"10000\r\n" + b"x" * 0x10000 + b"\r\n") < 64 << 20
    assert turned_away(site) == {"long": 1}


@pytest.mark.parametrize("junk", [b"1;" + b"x" * 10_000 + b"\r\nx\r\n", b"0\r\ntrailer: " + b"x" * 100_000])
async def test_chunks_of_next_to_nothing_and_trailers_without_end_are_refused(site: Site, junk: bytes) -> None:
    async with served(site), opened(site.url) as (reader, writer):
        writer.write(head("transfer-encoding: chunked") + 8 * junk)
        assert (await answer(reader))[0] in (400, 408, 431)


async def _flood(writer: asyncio.StreamWriter, piece: bytes) -> int:
    """Bytes that went out until the connection broke, or 64 MiB."""
    sent = 0
    try:
        while sent < 64 << 20:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 200_000, 431),
        (b"GET /" + b"x" * 200_000, 414),
        (b"\x16\x03\x01 not HTTP at all", 400),
        (head("content-encoding: gzip", "content-length: 3") + b"abc", 415),
        (head("content-encoding: identity, br", "content-length: 3") + b"abc", 415),
        (head("transfer-encoding: gzip, chunked") + b"3\r\nabc\r\n0\r\n\r\n", 415),
        (head("content-length: 3", "transfer-encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n", 400),
    ],
)
async def test_heads_that_are_too_long_or_make_no_sense_are_refused(site: Site, request_: bytes, status: int) -> None:
    async with served(site), opened(site.url) as (reader, writer):
        writer.write(request_)
        got, rest = await answer(reader)
        body = json.loads(rest.partition(b"\r\n\r\n")[2])
    assert got == status
    assert body["detail"] == body["error"]
    assert sum(turned_away(site).values()) == 1
    assert site.service.state.unproven == 0


async def test_a_body_as_it_is_may_be_called_so(site: Site) -> None:
    async with opened(site.url) as (reader, writer):
        writer.write(head("content-encoding: identity", "content-length: 0", "connection: close"))
        assert (await answer(reader))[0] == 422


async def test_those_who_wait_give_way_to_those_who_come() -> None:
    patient = replace(SHORT, head_seconds=60.0)  # so that nobody is shown out for being silent, however slow this is
    async with exchange_site("N1", "N2", "N3", limits=patient, size=100_000) as site, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(opened(site.url)) for _ in range(SHORT.per_address)]
        async with served(site):
            assert await answer(idle[0][0]) == (0, b"")
        assert turned_away(site) == {"idle": 1}


async def test_when_all_are_at_work_a_newcomer_is_told_to_come_back(site: Site) -> None:
    async with AsyncExitStack() as stack:
        pulls = []
        for _ in range(SHORT.per_address):
            reader, writer = await stack.enter_async_context(opened(site.url))
            writer.write(head(path="/v1/outbox/N2?wait=20", method="GET"))
            pulls.append(reader)
        await eventually(lambda: site.server.entrance.at_work == SHORT.per_address)
        async with opened(site.url) as (reader, _):
            status, rest = await answer(reader)
            assert (status, b"retry-after: 1\r\n" in rest) == (503, True)
        site.service.release()
        for pull in pulls:
            assert b" 204 " in await asyncio.wait_for(pull.readline(), PATIENCE)
        async with served(site):
            pass
    assert turned_away(site)["full"] == 1


async def test_who_does_not_read_the_answer_is_cut_off() -> None:
    app = FastAPI()

    @app.get("/")
    def much() -> Response:
        return Response(b"x" * (64 << 20))

    server = Server(app, bind("127.0.0.1", 0), limits=SHORT)
    async with server.running(), opened(server.url) as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: n1\r\n\r\n")
        await eventually(lambda: server.entrance.turned_away["slow"] == 1)
        await eventually(lambda: len(server.entrance) == 0)


async def test_who_reads_the_answer_steadily_may_take_longer() -> None:
    app = FastAPI()

    @app.get("/")
    def much() -> Response:
        return Response(b"x" * (32 << 20))

    server = Server(app, bind("127.0.0.1", 0), limits=SHORT)
    async with server.running(), opened(server.url) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: n1\r\nconnection: close\r\n\r\n")
        size = 0
        while chunk := await reader.read(1 << 20):
            size += len(chunk)
            await asyncio.sleep(0.02)
        assert size > 32 << 20
        assert not server.entrance.turned_away


# --- over TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path) -> SiteTls:
    return SiteTls(lay(tmp_path / "N1", issue(authority(), "N1")), "test", "N1")


async def test_who_does_not_shake_hands_is_closed_and_nobody_waits_for_it(tls: SiteTls, tmp_path: Path) -> None:
    server = Server(FastAPI(), bind("127.0.0.1", 0), tls=tls.server, limits=SHORT)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server.running())
        silent = [await stack.enter_async_context(opened(server.url)) for _ in range(3 * SHORT.per_address)]
        async with httpx.AsyncClient(verify=context(tmp_path / "N1"), trust_env=False) as client:
            assert (await client.get(server.url)).status_code == 404
        for reader, _ in silent:
            # Closed with what it had sent unread, a connection may look reset.
            async with asyncio.timeout(PATIENCE):
                assert await _end(reader)
        await eventually(lambda: len(server.entrance) == 0)


async def _end(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def test_a_server_stops_while_somebody_shakes_hands(tls: SiteTls) -> None:
    server = Server(FastAPI(), bind("127.0.0.1", 0), tls=tls.server)
    started = time.monotonic()
    async with AsyncExitStack() as stack:
        async with server.running():
            reader, _ = await stack.enter_async_context(opened(server.url))
            await eventually(lambda: len(server.entrance) == 1)
        assert await _end(reader)
    assert time.monotonic() - started < PATIENCE


# --- how often ----------------------------------------------------------------------------------------------------

FEW = RateLimits(site_rate=0.01, site_burst=3, stranger_rate=0.01, stranger_burst=4)
"""One comes back in a hundred seconds: none while a test runs."""


@asynccontextmanager
async def calling(name: str, trust: Trust) -> AsyncIterator[NeighbourClient]:
    client = NeighbourClient(Signer(name, trust), 2.0, TLS)
    yield client
    await client.close()


@pytest.mark.parametrize("trust", [SECRET, INSECURE], ids=["secret", "insecure"])
async def test_a_neighbour_that_asks_too_often_is_told_to_wait_and_another_is_not(trust: Trust) -> None:
    async with (
        exchange_site("N1", "N2", "N3", rates=FEW, trust=trust) as site,
        calling("N2", trust) as hasty,
        calling("N3", trust) as other,
    ):
        began = time.monotonic()
        answers = [await hasty.push(site.url, "N1", update_slot("N2", "N1", number)) for number in range(1, 6)]
        spent = time.monotonic() - began
        assert [type(answer) for answer in answers] == [Delivered] * 3 + [Busy] * 2
        last = answers[-1]
        assert isinstance(last, Busy)
        assert last.status == 429
        assert 100 - spent <= last.retry_after <= 100
        assert isinstance(await other.push(site.url, "N1", update_slot("N3", "N1", 1)), Delivered)
        assert site.service.state.too_often == 2
        held = await site.mailbox.read(Box.INBOX, "N2")
        assert held is not None
        assert held.stamp.sequence == 3


async def test_a_stranger_does_not_use_up_what_a_neighbour_may() -> None:
    liar = Secret(b"not the secret at all")
    async with (
        exchange_site("N1", "N2", rates=FEW) as site,
        calling("N2", liar) as stranger,
        calling("N2", SECRET) as neighbour,
    ):
        answers = [await stranger.pull(site.url, "N1", None, 0.0, 1000) for _ in range(3)]
        assert {answer.status for answer in answers if isinstance(answer, Refusal)} == {401}
        pushed = [await neighbour.push(site.url, "N1", update_slot("N2", "N1", number)) for number in (1, 2, 3)]
        assert all(isinstance(answer, Delivered) for answer in pushed)
        last = [await stranger.pull(site.url, "N1", None, 0.0, 1000) for _ in range(3)]
        assert isinstance(last[-1], Busy)
        assert last[-1].status == 429
        assert site.service.state.unproven == 3
