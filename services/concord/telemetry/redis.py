"""What a process knows of its site's Redis, as readings; its memory is looked at between scrapes, not during one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from concord.errors import MailboxError
from concord.histogram import LATENCY, Histogram
from concord.redislink import LinkState, RedisLink
from concord.telemetry.registry import Reading, Source

LOOK_EVERY = 5.0
"""Seconds between two looks at the memory."""


def redis_source(*links: LinkState) -> Source:
    """Readings of all links of a process to its Redis, in one."""

    def read() -> Iterator[Reading]:
        yield Reading("concord_redis_seconds", Histogram.sum(LATENCY, (link.seconds for link in links)))
        yield Reading("concord_redis_failures_total", sum(link.failures for link in links))

    return read


class RedisMemory:
    """Looks at the memory of a Redis while `run` runs, and gives what it saw last as readings."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._used: int | None = None
        self._limit = 0

    async def run(self) -> None:
        """Look until cancelled; while Redis is out of reach nothing is known."""
        while True:
            try:
                self._used, self._limit = await self._link.memory()
            except MailboxError:
                self._used = None
            await asyncio.sleep(LOOK_EVERY)

    def readings(self) -> Iterator[Reading]:
        """What was seen last."""
        if self._used is not None:
            yield Reading("concord_redis_memory_bytes", self._used)
            if self._limit:
                yield Reading("concord_redis_memory_limit_bytes", self._limit)
