"""A site's mailbox in its own Redis: each put or collection is one Lua call, each wait one blocking read."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib import resources
from typing import cast

from concord.mailbox.keys import MailboxKeys
from concord.mailbox.limits import MailboxLimits
from concord.redislink import LinkOptions, RedisLink, Script, Word
from concord.site.ports import Box, Receipt, Slot
from concord.wire.messages import Stamp

_NOTHING_SEEN = ("-1", "-1", "-1")
_NO_ROOM = -1
_INLINE_BYTES = 1 << 16
"""A longer blob goes in and out beside the script: passing it through Lua would copy it twice on the way."""
_STAGED_MS = 60_000
"""How long a blob that never got into its slot stays, in milliseconds."""


class RedisMailbox:
    """The Mailbox port over Redis or Valkey; connections are made at first use.

    `url` is `redis://host:port/db`, `rediss://...` or `unix:///path/of/socket`; JobError if it is neither.
    """

    def __init__(
        self,
        url: str,
        federation: str,
        site: str,
        limits: MailboxLimits | None = None,
        options: LinkOptions | None = None,
    ) -> None:
        self.keys = MailboxKeys(federation, site)
        self._limits = limits or MailboxLimits()
        self.link = RedisLink(url, options)

    async def put(self, box: Box, neighbour: str, slot: Slot) -> Receipt:
        """See the port; MailboxError if the slot or the mailbox would grow over its limit."""
        self._limits.check_slot(len(slot.blob))
        lifetime = max(1, round(self._limits.ttl_seconds * 1000))
        staged = self.keys.staged(secrets.token_hex(8))
        beside = not 0 < len(slot.blob) <= _INLINE_BYTES
        if beside:
            await self.link.command("SET", staged, slot.blob, "PX", _STAGED_MS)
        names = (self.keys.slot(box, neighbour), self.keys.news(box), self.keys.ledger)
        keys = [*names, self.keys.blob(box, neighbour), staged]
        blob = b"" if beside else slot.blob
        args: list[Word] = [*_words(slot.stamp), blob, lifetime, self._limits.max_total_bytes]
        answer = cast("tuple[int, bytes, bytes, bytes]", await self.link.run(_PUT_NEWEST, keys, args))
        outcome, *newest = answer
        if outcome == _NO_ROOM:
            raise self._limits.over_total(len(slot.blob))
        return Receipt(stored=bool(outcome), newest=_stamp(newest))

    async def read(self, box: Box, neighbour: str, after: Stamp | None = None) -> Slot | None:
        """See the port."""
        return (await self.collect(box, {neighbour: after})).get(neighbour)

    async def collect(self, box: Box, seen: Mapping[str, Stamp | None]) -> dict[str, Slot]:
        """See the port."""
        if not seen:
            return {}
        keys = [key for name in seen for key in (self.keys.slot(box, name), self.keys.blob(box, name))]
        args: list[Word] = [word for stamp in seen.values() for word in _words(stamp)]
        answer = await self.link.run(_COLLECT, keys, [*args, _INLINE_BYTES])
        found = cast("list[list[bytes] | None]", answer)
        slots = {name: Slot(_stamp(fields[:3]), fields[3]) for name, fields in zip(seen, found, strict=True) if fields}
        for name in [name for name, slot in slots.items() if not slot.blob]:
            fetched = await self._fetch(box, name)
            if fetched is None:
                del slots[name]
            else:
                slots[name] = fetched
        return slots

    async def _fetch(self, box: Box, neighbour: str) -> Slot | None:
        """A slot whatever its size; the stamp may be newer than it was a moment ago, but it is that of the blob."""
        stamp, blob = await self.link.together(
            [
                ("HMGET", self.keys.slot(box, neighbour), "epoch", "incarnation", "sequence"),
                ("GET", self.keys.blob(box, neighbour)),
            ]
        )
        fields = cast("list[bytes | None]", stamp)
        if blob is None or fields[0] is None:
            return None
        return Slot(_stamp(cast("list[bytes]", fields)), cast("bytes", blob))

    async def ticket(self, box: Box) -> str:
        """See the port."""
        return await self.link.ticket(self.keys.news(box))

    async def wait(self, box: Box, ticket: str, timeout: float) -> str:
        """See the port."""
        return await self.link.wait(self.keys.news(box), ticket, timeout)

    async def discard(self, box: Box, neighbour: str) -> None:
        """See the port."""
        slot = self.keys.slot(box, neighbour)
        await self.link.together(
            [("DEL", slot, self.keys.blob(box, neighbour)), ("HDEL", self.keys.ledger, slot)],
        )

    async def write_note(self, name: str, text: str) -> None:
        """See the port."""
        await self.link.command("SET", self.keys.note(name), text)

    async def read_note(self, name: str) -> str | None:
        """See the port."""
        text = cast("bytes | None", await self.link.command("GET", self.keys.note(name)))
        return None if text is None else text.decode()

    async def close(self) -> None:
        """See the port."""
        await self.link.close()


def _load(name: str) -> Script:
    return Script(resources.files("concord.mailbox").joinpath("scripts", name).read_text(encoding="utf-8"))


_PUT_NEWEST = _load("put_newest.lua")
_COLLECT = _load("collect.lua")


def _words(stamp: Stamp | None) -> tuple[str, str, str]:
    if stamp is None:
        return _NOTHING_SEEN
    return str(stamp.epoch), str(stamp.incarnation), str(stamp.sequence)


def _stamp(fields: list[bytes]) -> Stamp:
    return Stamp(*(int(field) for field in fields))
