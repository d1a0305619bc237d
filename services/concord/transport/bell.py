"""One announcement, heard by all who listen at the time."""

from __future__ import annotations

import asyncio
import contextlib


class Bell:
    """Listen first, look second, wait third: what happens in between is not missed."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """The event that the next ring sets."""
        return self._next

    def ring(self) -> None:
        """Wake everybody who listened before."""
        rung, self._next = self._next, asyncio.Event()
        rung.set()


async def wait_for(event: asyncio.Event, timeout: float | None) -> None:
    """Return once the event is set, or after `timeout` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await event.wait()
