"""What is written in one turn of the loop is sent together, in order, and not after an end."""

from __future__ import annotations

import asyncio

import pytest

from concord.apps.joined_writes import JoinedWrites

pytestmark = pytest.mark.anyio


class Wire(asyncio.Transport):
    """Remembers what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def write_eof(self) -> None:
        self.done.append("eof")

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def get_write_buffer_size(self) -> int:
        return 100

    def is_closing(self) -> bool:
        return bool({"close", "abort"} & set(map(str, self.done)))


def joined() -> tuple[JoinedWrites, Wire]:
    wire = Wire()
    return JoinedWrites(wire, asyncio.get_running_loop()), wire


async def test_writes_of_one_turn_are_one() -> None:
    transport, wire = joined()
    for data in (b"head", b"body"):
        transport.write(data)
    assert wire.done == []
    assert transport.get_write_buffer_size() == 108
    await asyncio.sleep(0)
    transport.write(b"next")
    await asyncio.sleep(0)
    assert wire.done == [b"headbody", b"next"]
    assert transport.get_write_buffer_size() == 100


async def test_what_is_flushed_is_sent_once() -> None:
    transport, wire = joined()
    transport.write(b"answer")
    transport.flush()
    await asyncio.sleep(0)
    assert wire.done == [b"answer"]


@pytest.mark.parametrize("end", ["close", "write_eof"])
async def test_an_end_comes_after_what_was_written(end: str) -> None:
    transport, wire = joined()
    transport.write(b"last")
    getattr(transport, end)()
    await asyncio.sleep(0)
    assert wire.done == [b"last", end.removeprefix("write_")]


async def test_nothing_is_sent_after_an_abort() -> None:
    transport, wire = joined()
    transport.write(b"lost")
    transport.abort()
    await asyncio.sleep(0)
    assert wire.done == ["abort"]
    assert transport.is_closing()
