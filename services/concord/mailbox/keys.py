"""Every Redis key of a mailbox in one place.

The part in braces is what a Redis cluster hashes, so all keys of one site share one cluster slot and one Lua
call may touch several of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from concord.redislink import site_prefix
from concord.site.ports import Box


@dataclass(frozen=True, slots=True)
class MailboxKeys:
    """The keys of one site's mailbox in one federation."""

    federation: str
    site: str

    @property
    def prefix(self) -> str:
        """What every key of this site begins with, its shelf of snapshots included."""
        return site_prefix(self.federation, self.site)

    def slot(self, box: Box, neighbour: str) -> str:
        """Hash: `epoch`, `incarnation`, `sequence` (decimal) of the newest update."""
        return f"{self.prefix}:{box}:{neighbour}"

    def blob(self, box: Box, neighbour: str) -> str:
        """String: the newest update itself, there as long as its slot is."""
        return f"{self.prefix}:blob:{box}:{neighbour}"

    def staged(self, token: str) -> str:
        """String: a large update on its way into a slot; it expires by itself if that never happens."""
        return f"{self.prefix}:staged:{token}"

    def news(self, box: Box) -> str:
        """Stream of at most one entry, added by every stored put; its newest id is the box's ticket."""
        return f"{self.prefix}:news:{box}"

    @property
    def ledger(self) -> str:
        """Hash: for each filled slot its bytes and when it expires, to hold the cap on the whole mailbox."""
        return f"{self.prefix}:ledger"

    def note(self, name: str) -> str:
        """String: the text of one note."""
        return f"{self.prefix}:note:{name}"
