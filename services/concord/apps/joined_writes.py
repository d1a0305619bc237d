"""A transport that puts together what is written in one turn of the event loop.

uvicorn writes the head of an answer and its body one after the other, and uvloop sends each at once: two calls of the
system, two packets, and a caller that wakes twice.
"""

from __future__ import annotations

import asyncio
from typing import Any


class JoinedWrites:
    """Stands for a transport; what it does not know itself is the transport's."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send at the end of this turn, or with `flush`."""
        if not self._pending:
            self._loop.call_soon(self.flush)
        self._pending.append(data)

    def flush(self) -> None:
        """Send what is there."""
        if self._pending:
            data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
            self._pending.clear()
            self._transport.write(data)

    def write_eof(self) -> None:
        """Send what is there and no more."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close once all is sent."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what is not sent is lost."""
        self._pending.clear()
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._pending))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
