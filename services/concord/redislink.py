"""One site's way to its Redis: connections, scripts and blocking waits, with every failure a MailboxError.

The mailbox and the shelf of snapshots stand on it; nothing else imports the client library. It must not know
what is stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, OutOfMemoryError, RedisError

from concord.errors import JobError, MailboxError
from concord.histogram import LATENCY, Histogram

NOTHING_YET = "0-0"
"""The ticket of a stream that has no entry: smaller than any other."""


# The library may quote a whole command, blob and all.
_DETAIL_LIMIT = 300


class RedisFullError(MailboxError):
    """Redis has reached its memory limit and refused a write."""


Word = str | int | bytes
"""One word of a Redis command."""


@dataclass(frozen=True)
class Script:
    """A Lua script, known to the server by the SHA-1 digest of its source."""

    source: str

    @cached_property
    def digest(self) -> str:
        """40 hexadecimal digits."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How a site's process talks to its Redis.

    `timeout` (seconds): how long a command, or connecting, may take before it counts as failed.
    `connections`: how many commands may be under way at once; more wait their turn. `waiters`: the same for
    blocking waits, which have connections of their own and so never hold up a command.
    """

    timeout: float = 2.0
    connections: int = 8
    waiters: int = 64


@dataclass(slots=True)
class LinkState:
    """What a link has seen: seconds of commands that were answered, and how many were not."""

    seconds: Histogram = field(default_factory=lambda: Histogram(LATENCY))
    failures: int = 0


def site_prefix(federation: str, site: str) -> str:
    """What every Redis key of one site begins with; the braces keep them in one slot of a Redis cluster."""
    return f"concord:{{{federation}:{site}}}"


class RedisLink:
    """Connections to one Redis; they are made at first use and made anew by themselves after a failure."""

    def __init__(self, url: str, options: LinkOptions | None = None) -> None:
        options = options or LinkOptions()
        self.state = LinkState()
        self._timeout = options.timeout
        self._closed = False
        # A pooled connection that a restarted server closed fails at its first use, so a command is tried
        # twice; all are idempotent. A wait is not: it would come back to life after `close`.
        limit = options.timeout
        self._client = _client(url, options.connections, limit, read_timeout=limit, retries=1)
        self._waiting = _client(url, options.waiters, limit, read_timeout=None, retries=0)
        # The library's method carries no types.
        self._ask = cast("Callable[..., Awaitable[object]]", self._client.execute_command)
        self._wait = cast("Callable[..., Awaitable[object]]", self._waiting.execute_command)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Word]) -> object:
        """A script's answer; its source is sent once, and again to a server that does not know it."""
        with self._translated(), self._timed():
            try:
                return await self._ask("EVALSHA", script.digest, len(keys), *keys, *args)
            except NoScriptError:
                return await self._ask("EVAL", script.source, len(keys), *keys, *args)

    async def command(self, *words: Word) -> object:
        """The answer to one command."""
        with self._translated(), self._timed():
            return await self._ask(*words)

    async def together(self, commands: Sequence[tuple[Word, ...]]) -> list[object]:
        """The answers to several commands in one round trip, with nothing between them; all happen or none."""
        with self._translated(), self._timed():
            async with self._client.pipeline(transaction=True) as pipeline:
                for words in commands:
                    pipeline.execute_command(*words)
                return list(await pipeline.execute())

    async def ticket(self, stream: str) -> str:
        """The id of a stream's newest entry."""
        answer = await self.command("XREVRANGE", stream, "+", "-", "COUNT", 1)
        entries = cast("list[tuple[bytes, object]]", answer)
        return entries[0][0].decode() if entries else NOTHING_YET

    async def wait(self, stream: str, ticket: str, timeout: float) -> str:
        """The id of the stream's newest entry once after `ticket`; `ticket` after `timeout` seconds."""
        block = max(1, math.ceil(timeout * 1000))
        with self._translated():
            async with asyncio.timeout(timeout + self._timeout):
                answer = await self._wait("XREAD", "BLOCK", block, "STREAMS", stream, ticket)
        return _newest_id(answer) or ticket

    async def close(self) -> None:
        """Close the connections; every later call raises MailboxError."""
        self._closed = True
        await self._client.aclose()
        await self._waiting.aclose()

    async def memory(self) -> tuple[int, int]:
        """Bytes that the server's data take, and how many they may (0: as many as there are)."""
        info: dict[str, int] = {}
        # A server whose rules forbid the question does all else that it should: that is no failure of it.
        with self._translated(), self._timed(), suppress(NoPermissionError):
            info = cast("dict[str, int]", await self._ask("INFO", "memory"))
        if "used_memory" not in info:
            raise MailboxError("Redis does not say what memory it uses (INFO memory)")
        return int(info["used_memory"]), int(info.get("maxmemory", 0))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.state.seconds.observe(time.perf_counter() - began)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._closed:
            raise MailboxError("the connection to Redis was closed")
        try:
            yield
        except OutOfMemoryError as error:
            self.state.failures += 1
            raise RedisFullError("Redis is full and refused a write; give it more memory") from error
        except (RedisError, OSError, TimeoutError) as error:
            self.state.failures += 1
            detail = str(error)[:_DETAIL_LIMIT] or type(error).__name__
            raise MailboxError(f"Redis did not answer as it should: {detail}") from error


def _client(url: str, connections: int, connect_timeout: float, read_timeout: float | None, retries: int) -> Redis:
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=None,
            socket_timeout=read_timeout,
            socket_connect_timeout=connect_timeout,
            retry=Retry(NoBackoff(), retries, supported_errors=(RedisConnectionError,)),
            protocol=2,
        )
    except ValueError:
        # The library quotes what it could not read, and that may be of the password.
        raise JobError(
            "the Redis URL is wrong: redis://:PASSWORD@HOST:PORT/DB, rediss://... or unix:///PATH is right, with "
            "special characters of the password written as %XX"
        ) from None
    return Redis.from_pool(pool)


def _newest_id(answer: object) -> str | None:
    streams = cast("list[tuple[bytes, list[tuple[bytes, object]]]] | None", answer)
    return streams[0][1][-1][0].decode() if streams else None
