"""The shelf between a trainer and inference: the last few model snapshots, in memory or in the site's Redis.

It must not know what is in a snapshot, nor who serves it.
"""

from __future__ import annotations

import asyncio
import json
from importlib import resources
from typing import cast

from concord.errors import MailboxError
from concord.redislink import LinkOptions, RedisFullError, RedisLink, Script, site_prefix
from concord.site.ports import Snapshot

DEFAULT_KEEP = 3
"""How many snapshots a shelf holds unless told otherwise."""

_LOAD_ATTEMPTS = 3


class MemoryShelf:
    """The SnapshotShelf port in memory, for one event loop; `keep` is its capacity (>= 1)."""

    def __init__(self, keep: int = DEFAULT_KEEP) -> None:
        self._keep = keep
        self._snapshots: dict[int, Snapshot] = {}
        self._published = asyncio.Event()
        self._closed = False

    async def publish(self, snapshot: Snapshot) -> None:
        """See the port."""
        self._check_open()
        self._snapshots[snapshot.version] = snapshot
        for version in sorted(self._snapshots)[: -self._keep]:
            del self._snapshots[version]
        self._wake()

    async def newest_version(self) -> int | None:
        """See the port."""
        self._check_open()
        return max(self._snapshots, default=None)

    async def load(self, version: int | None = None) -> Snapshot | None:
        """See the port."""
        wanted = await self.newest_version() if version is None else version
        self._check_open()
        return None if wanted is None else self._snapshots.get(wanted)

    async def wait(self, after: int, timeout: float) -> int | None:
        """See the port."""
        deadline = asyncio.get_running_loop().time() + timeout
        newest = await self.newest_version()
        try:
            async with asyncio.timeout_at(deadline):
                while newest is None or newest <= after:
                    await self._published.wait()
                    newest = await self.newest_version()
        except TimeoutError:
            return newest
        return newest

    async def close(self) -> None:
        """See the port; whoever waits gets a MailboxError."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        # Those who wait hold the old event; whoever comes next gets the new one.
        self._published.set()
        self._published = asyncio.Event()

    def _check_open(self) -> None:
        if self._closed:
            raise MailboxError("the shelf of snapshots was closed")


class RedisShelf:
    """The SnapshotShelf port over Redis or Valkey, for one publisher per site; `keep` is its capacity (>= 1).

    Keys, beside the site's mailbox: `snapshots` (sorted set of the versions), `snapshot:<version>` (hash:
    `about`, `blob`) and `news:snapshots` (stream of at most one entry, added by every publication).
    """

    def __init__(
        self,
        url: str,
        federation: str,
        site: str,
        keep: int = DEFAULT_KEEP,
        options: LinkOptions | None = None,
    ) -> None:
        self._keep = keep
        self._link = RedisLink(url, options)
        prefix = site_prefix(federation, site)
        self._index = f"{prefix}:snapshots"
        self._news = f"{prefix}:news:snapshots"
        self._snapshot = f"{prefix}:snapshot"

    async def publish(self, snapshot: Snapshot) -> None:
        """See the port; if Redis is full, older snapshots go first, down to the newest."""
        while True:
            versions = await self._versions()
            try:
                return await self._add(snapshot, versions)
            except RedisFullError:
                # The newest on the shelf is what is served: it stays, whatever becomes of the new one.
                if len(versions) < 2:
                    raise
                await self._take_down(versions[0])

    async def newest_version(self) -> int | None:
        """See the port."""
        versions = await self._versions()
        return versions[-1] if versions else None

    async def load(self, version: int | None = None) -> Snapshot | None:
        """See the port."""
        for _ in range(_LOAD_ATTEMPTS):
            wanted = await self.newest_version() if version is None else version
            if wanted is None:
                return None
            answer = await self._link.command("HMGET", self._key(wanted), "about", "blob")
            about, blob = cast("tuple[bytes | None, bytes | None]", answer)
            if about is not None and blob is not None:
                return _snapshot(about, blob)
            if version is not None:
                return None
            # Between the two questions the newest was replaced: ask again.
        return None

    async def wait(self, after: int, timeout: float) -> int | None:
        """See the port."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        ticket = await self._link.ticket(self._news)
        newest = await self.newest_version()
        while (newest is None or newest <= after) and (left := deadline - loop.time()) > 0:
            ticket = await self._link.wait(self._news, ticket, left)
            newest = await self.newest_version()
        return newest

    async def close(self) -> None:
        """See the port."""
        await self._link.close()

    def _key(self, version: int) -> str:
        return f"{self._snapshot}:{version}"

    async def _versions(self) -> list[int]:
        answer = await self._link.command("ZRANGE", self._index, 0, -1)
        return [int(version) for version in cast("list[bytes]", answer)]

    async def _add(self, snapshot: Snapshot, present: list[int]) -> None:
        dropped = sorted({*present, snapshot.version})[: -self._keep]
        keys = [self._index, self._news, self._key(snapshot.version), *map(self._key, dropped)]
        about = json.dumps(_about(snapshot))
        await self._link.run(_PUBLISH, keys, [snapshot.version, about, snapshot.blob, *dropped])

    async def _take_down(self, version: int) -> None:
        await self._link.together([("DEL", self._key(version)), ("ZREM", self._index, version)])


_PUBLISH = Script(resources.files("concord.serving").joinpath("scripts", "publish.lua").read_text(encoding="utf-8"))


def _about(snapshot: Snapshot) -> dict[str, object]:
    return {
        "version": snapshot.version,
        "round": snapshot.round,
        "step": snapshot.step,
        "fingerprint": snapshot.fingerprint,
        "metrics": dict(snapshot.metrics),
        "created_at": snapshot.created_at,
    }


def _snapshot(about: bytes, blob: bytes) -> Snapshot:
    return Snapshot(**json.loads(about), blob=blob)
