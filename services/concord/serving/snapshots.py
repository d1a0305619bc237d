"""The shelf between a trainer and inference: the last few model snapshots, in memory or in the site's Redis.

It must not know what is in a snapshot, nor who serves it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from importlib import resources
from typing import Any, cast

from concord.errors import MailboxError
from concord.redislink import LinkOptions, RedisFullError, RedisLink, Script, site_prefix
from concord.site.ports import Heard, Lineage, Mark, MarkResult, Marks, Snapshot, Stock

DEFAULT_KEEP = 3
"""How many snapshots a shelf holds unless told otherwise."""
MOST_PINNED = 16
"""How many may be pinned at once: each is a whole model that nothing takes down."""

_LOAD_ATTEMPTS = 3
_PIN = "pin:"


class MemoryShelf:
    """The SnapshotShelf port in memory, for one event loop; `keep` is its capacity (>= 1)."""

    def __init__(self, keep: int = DEFAULT_KEEP) -> None:
        self._keep = keep
        self._snapshots: dict[int, Snapshot] = {}
        self._marks = Marks()
        self._changes = 0
        self._changed = asyncio.Event()
        self._closed = False

    async def publish(self, snapshot: Snapshot) -> None:
        """See the port."""
        self._check_open()
        self._snapshots[snapshot.version] = snapshot
        for version in sorted(self._snapshots)[: -self._keep]:
            if version not in self._marks.kept:
                del self._snapshots[version]
        self._tell()

    async def newest_version(self) -> int | None:
        """See the port."""
        self._check_open()
        return max(self._snapshots, default=None)

    async def load(self, version: int | None = None) -> Snapshot | None:
        """See the port."""
        wanted = await self.newest_version() if version is None else version
        self._check_open()
        return None if wanted is None else self._snapshots.get(wanted)

    async def stock(self) -> Stock:
        """See the port."""
        self._check_open()
        snapshots = (self._snapshots[version] for version in sorted(self._snapshots))
        return Stock(tuple(replace(snapshot, blob=b"") for snapshot in snapshots), self._marks)

    async def mark(self, mark: Mark, version: int) -> MarkResult:
        """See the port."""
        self._check_open()
        marks = self._marks
        known = marks.pinned | {marks.held} if mark is Mark.UNPIN else self._snapshots.keys()
        if version not in known:
            return MarkResult.ABSENT
        if mark is Mark.PIN and len(marks.pinned - {version}) >= MOST_PINNED:
            return MarkResult.FULL
        self._marks = _marked(marks, mark, version, max(self._snapshots, default=0))
        if mark is not Mark.SERVED:
            self._tell()
        return MarkResult.DONE

    async def ticket(self) -> str:
        """See the port."""
        self._check_open()
        return str(self._changes)

    async def wait(self, ticket: str, timeout: float) -> str:
        """See the port."""
        try:
            async with asyncio.timeout(timeout):
                while await self.ticket() == ticket:
                    await self._changed.wait()
        except TimeoutError:
            return ticket
        return await self.ticket()

    async def close(self) -> None:
        """See the port; whoever waits gets a MailboxError."""
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        # Those who wait hold the old event; whoever comes next gets the new one.
        self._changes += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _check_open(self) -> None:
        if self._closed:
            raise MailboxError("the shelf of snapshots was closed")


def _marked(marks: Marks, mark: Mark, version: int, newest: int) -> Marks:
    """The marks after one more, which is possible; `mark.lua` does the same."""
    match mark:
        case Mark.PIN:
            return replace(marks, pinned=marks.pinned | {version})
        case Mark.UNPIN:
            held = None if marks.held == version else marks.held
            return replace(marks, pinned=marks.pinned - {version}, held=held)
        case Mark.HOLD:
            return replace(marks, held=version, promoted=None, floor=-1)
        case Mark.PROMOTE:
            return replace(marks, held=None, promoted=version, floor=newest)
        case Mark.SERVED:
            return replace(marks, served=version)


class RedisShelf:
    """The SnapshotShelf port over Redis or Valkey, for one publisher per site; `keep` is its capacity (>= 1).

    Keys, beside the site's mailbox: `snapshots` (sorted set of the versions), `snapshot:<version>` (hash:
    `about`, `blob`), `marks` (hash, see kept.lua) and `news:snapshots` (stream of at most one entry, added by every
    publication and every mark that changes what is served or kept).
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
        self.link = RedisLink(url, options)
        prefix = site_prefix(federation, site)
        self._index = f"{prefix}:snapshots"
        self._news = f"{prefix}:news:snapshots"
        self._snapshot = f"{prefix}:snapshot"
        self._marks = f"{prefix}:marks"

    async def publish(self, snapshot: Snapshot) -> None:
        """See the port; if Redis is full, older snapshots go first, but the newest and those that marks keep."""
        while True:
            versions = await self._versions()
            try:
                return await self._add(snapshot, versions)
            except RedisFullError:
                # The newest on the shelf is what is served, or will be: it stays, whatever becomes of the new one.
                if not await self._make_room(versions[:-1]):
                    raise

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
            answer = await self.link.command("HMGET", self._key(wanted), "about", "blob")
            about, blob = cast("tuple[bytes | None, bytes | None]", answer)
            if about is not None and blob is not None:
                return _snapshot(about, blob)
            if version is not None:
                return None
            # Between the two questions the newest was replaced: ask again.
        return None

    async def stock(self) -> Stock:
        """See the port."""
        versions = await self._versions()
        questions = [("HGET", self._key(version), "about") for version in versions]
        *abouts, marks = await self.link.together([*questions, ("HGETALL", self._marks)])
        # One that was taken down between the two questions is not there.
        found = tuple(_snapshot(about, b"") for about in cast("list[bytes | None]", abouts) if about is not None)
        return Stock(found, _read_marks(cast("Mapping[bytes, bytes]", marks)))

    async def mark(self, mark: Mark, version: int) -> MarkResult:
        """See the port."""
        keys = [self._index, self._news, self._marks]
        return MarkResult(cast(bytes, await self.link.run(_MARK, keys, [mark, version, MOST_PINNED])).decode())

    async def ticket(self) -> str:
        """See the port."""
        return await self.link.ticket(self._news)

    async def wait(self, ticket: str, timeout: float) -> str:
        """See the port."""
        return await self.link.wait(self._news, ticket, timeout)

    async def close(self) -> None:
        """See the port."""
        await self.link.close()

    def _key(self, version: int) -> str:
        return f"{self._snapshot}:{version}"

    async def _versions(self) -> list[int]:
        answer = await self.link.command("ZRANGE", self._index, 0, -1)
        return [int(version) for version in cast("list[bytes]", answer)]

    async def _add(self, snapshot: Snapshot, present: list[int]) -> None:
        others = [version for version in present if version != snapshot.version]
        keys = [self._index, self._news, self._marks, *map(self._key, [snapshot.version, *others])]
        about = json.dumps(_about(snapshot))
        await self.link.run(_PUBLISH, keys, [snapshot.version, about, snapshot.blob, self._keep, *others])

    async def _make_room(self, versions: list[int]) -> bool:
        keys = [self._index, self._marks, *map(self._key, versions)]
        return await self.link.run(_MAKE_ROOM, keys, versions) == 1


def _script(*names: str) -> Script:
    folder = resources.files("concord.serving").joinpath("scripts")
    return Script("\n".join(folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in names))


_PUBLISH = _script("kept", "publish")
_MAKE_ROOM = _script("kept", "make_room")
_MARK = _script("mark")


def _about(snapshot: Snapshot) -> dict[str, object]:
    return asdict(replace(snapshot, blob=b"")) | {"blob": None}


def _snapshot(about: bytes, blob: bytes) -> Snapshot:
    told: dict[str, Any] = json.loads(about)
    # What another version of Concord wrote may say more, or less.
    known = {name: told[name] for name in _FIELDS if name in told}
    lineage = told.get("lineage", {})
    heard = {site: Heard(**newest) for site, newest in lineage.get("heard", {}).items()}
    return Snapshot(**known | {"lineage": Lineage(**lineage | {"heard": heard}), "blob": blob})


_FIELDS = tuple(field.name for field in fields(Snapshot))


def _read_marks(fields_: Mapping[bytes, bytes]) -> Marks:
    said = {name.decode(): text.decode() for name, text in fields_.items()}
    pinned = frozenset(int(name.removeprefix(_PIN)) for name in said if name.startswith(_PIN))
    return Marks(pinned, **{name: int(text) for name, text in said.items() if not name.startswith(_PIN)})
