"""What lies between two sites: a TCP proxy for each direction of each edge, whose conditions change while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

HOST = "127.0.0.1"
_CHUNK = 16384
_LOOK = 0.02
"""Seconds between two looks whether a partition has healed."""


@dataclass(slots=True)
class Wire:
    """One direction of an edge: from whoever calls `port` to `target`, and its present conditions.

    `delay`: seconds each piece takes longer. `rate`: bytes per second (None: no limit). `cut`: the chance that a piece
    ends its connection. `broken`: connections are refused and ended; `held`: nothing arrives until it heals.
    """

    port: int
    target: int
    delay: float = 0.0
    rate: float | None = None
    cut: float = 0.0
    broken: bool = False
    held: bool = False
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, HOST, self.port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond: asyncio.StreamWriter | None = None
        try:
            await self._heal()
            back, beyond = await asyncio.open_connection(HOST, self.target)
            pumps = [asyncio.create_task(self._pump(*way)) for way in ((reader, beyond), (back, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # as whoever called will notice
        finally:
            for end in (writer, beyond):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(_CHUNK):
                await asyncio.sleep(self.delay + (len(piece) / self.rate if self.rate else 0.0))
                await self._heal()
                if self.draw.random() < self.cut:
                    return
                sink.write(piece)
                await sink.drain()

    async def _heal(self) -> None:
        while self.held and not self.broken:
            await asyncio.sleep(_LOOK)
        if self.broken:
            raise ConnectionResetError("partition")


class Wires:
    """All wires, served by an event loop in a thread of its own from `with` to its end."""

    def __init__(self, wires: Iterable[Wire]) -> None:
        self._wires = list(wires)
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for wire in self._wires:
            self._servers.append(asyncio.run_coroutine_threadsafe(wire.serve(), self._loop).result(10))
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
