"""The client against a neighbour that answers all sorts of things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from concord.errors import TransportError
from concord.site.ports import Slot
from concord.transport.http import Busy, Delivered, NeighbourClient, Nothing, Refusal, parse_retry_after
from concord.transport.identity import Signer
from concord.wire.messages import Stamp
from exchange_sites import SECRET, TLS, free_port, update_slot

pytestmark = pytest.mark.anyio

SLOT = update_slot("N1", "N2", 5)


@pytest.fixture
async def client() -> AsyncIterator[NeighbourClient]:
    client = NeighbourClient(Signer("N1", SECRET), 1.0, TLS)
    yield client
    await client.close()


@asynccontextmanager
async def neighbour(status: str, *headers: str, body: bytes = b"") -> AsyncIterator[str]:
    """A server that gives one answer to whatever it is asked."""
    length = f"content-length: {len(body)}"
    answer = "\r\n".join([f"HTTP/1.1 {status}", length, "connection: close", *headers, "", ""]).encode() + body

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_stored(client: NeighbourClient) -> None:
    async with neighbour("204 No Content") as url:
        assert await client.push(url, "N2", SLOT) == Delivered(SLOT.stamp)


async def test_known_already(client: NeighbourClient) -> None:
    async with neighbour("200 OK", body=b'{"newest": "1.2.3"}') as url:
        assert await client.push(url, "N2", SLOT) == Delivered(Stamp(1, 2, 3))


async def test_refused(client: NeighbourClient) -> None:
    body = b'{"reason": "epoch", "detail": "edge epoch is 1", "expected": 2}'
    async with neighbour("409 Conflict", body=body) as url:
        assert await client.push(url, "N2", SLOT) == Refusal(409, "epoch", "edge epoch is 1")
        assert await client.pull(url, "N2", None, 0.0, 1000) == Refusal(409, "epoch", "edge epoch is 1")


@pytest.mark.parametrize("body", [b"<html>", b"[" * 8_000])
async def test_refused_by_something_that_is_no_exchange(client: NeighbourClient, body: bytes) -> None:
    async with neighbour("404 Not Found", body=body) as url:
        assert await client.push(url, "N2", SLOT) == Refusal(404, "404", "")


async def test_a_reason_that_a_neighbour_makes_up_is_counted_by_its_status(client: NeighbourClient) -> None:
    async with neighbour("409 Conflict", body=b'{"reason": "whim 4711", "detail": "no"}') as url:
        assert await client.push(url, "N2", SLOT) == Refusal(409, "409", "no")


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
async def test_busy(client: NeighbourClient, status: str) -> None:
    async with neighbour(status, "retry-after: 7") as url:
        assert await client.push(url, "N2", SLOT) == Busy(int(status[:3]), 7.0, "")


@pytest.mark.parametrize("status", ["500 Oops", "502 Bad Gateway", "302 Found"])
async def test_an_answer_that_makes_no_sense_is_an_error(client: NeighbourClient, status: str) -> None:
    async with neighbour(status) as url:
        with pytest.raises(TransportError, match=f"N2.*{status[:3]}"):
            await client.push(url, "N2", SLOT)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"newest": 3}', b'{"newest": "x"}', b"\xff", b"[" * 8_000])
async def test_a_known_stamp_that_is_none_is_an_error(client: NeighbourClient, body: bytes) -> None:
    async with neighbour("200 OK", body=body) as url:
        with pytest.raises(TransportError):
            await client.push(url, "N2", SLOT)


async def test_a_pulled_update(client: NeighbourClient) -> None:
    async with neighbour("200 OK", 'etag: "1.1.5"', body=SLOT.blob) as url:
        assert await client.pull(url, "N2", None, 0.0, 10_000) == Slot(Stamp(1, 1, 5), SLOT.blob)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_nothing_to_pull(client: NeighbourClient, status: str) -> None:
    async with neighbour(status) as url:
        assert await client.pull(url, "N2", Stamp(1, 1, 5), 0.0, 10_000) == Nothing()


async def test_an_answer_over_the_limit_is_not_taken_in(client: NeighbourClient) -> None:
    async with neighbour("200 OK", 'etag: "1.1.5"', body=b"x" * 1_000_000) as url:
        with pytest.raises(TransportError, match="more than 1000 bytes"):
            await client.pull(url, "N2", None, 0.0, 1000)


async def test_an_update_without_a_stamp_is_an_error(client: NeighbourClient) -> None:
    async with neighbour("200 OK", body=SLOT.blob) as url:
        with pytest.raises(TransportError, match="stamp"):
            await client.pull(url, "N2", None, 0.0, 10_000)


async def test_a_neighbour_that_is_not_there(client: NeighbourClient) -> None:
    with pytest.raises(TransportError, match=r"N2 at 127\.0\.0\.1"):
        await client.push(f"http://127.0.0.1:{free_port()}", "N2", SLOT)


async def test_an_address_that_is_none(client: NeighbourClient) -> None:
    with pytest.raises(TransportError):
        await client.push("ftp://N2", "N2", SLOT)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0", 0.0),
        ("99999", 300.0),
        ("-1", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, now=1000.0) == seconds
