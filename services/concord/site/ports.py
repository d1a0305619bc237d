"""What a site needs from the outside, as Protocols: one for its mailbox, one for its shelf of model snapshots.

Adapters in `mailbox` and `serving` satisfy them; tests run one contract suite against every adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from concord.wire.messages import Stamp


class Box(StrEnum):
    """The two halves of a mailbox: updates from neighbours, and updates for neighbours."""

    INBOX = "inbox"
    OUTBOX = "outbox"


@dataclass(frozen=True, slots=True)
class Slot:
    """The newest update to or from one neighbour, encoded."""

    stamp: Stamp
    blob: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a put: whether it was stored, and the newest stamp the slot holds now."""

    stored: bool
    newest: Stamp


class Mailbox(Protocol):
    """One site's inbox and outbox: a slot per neighbour and box, newest wins. MailboxError from every method.

    Memory is bounded by the number of neighbours whatever the traffic: a put replaces what the slot held.
    """

    async def put(self, box: Box, neighbour: str, slot: Slot) -> Receipt:
        """Store if the stamp is newer than the slot's; otherwise leave the slot as it is."""

    async def read(self, box: Box, neighbour: str, after: Stamp | None = None) -> Slot | None:
        """The slot's content if it is newer than `after` (whatever it is if None); None if there is none."""

    async def collect(self, box: Box, seen: Mapping[str, Stamp | None]) -> dict[str, Slot]:
        """For each neighbour in `seen`, its slot if newer than the stamp given; one round trip for all."""

    async def ticket(self, box: Box) -> str:
        """A mark of the box's present state, to be given to `wait`."""

    async def wait(self, box: Box, ticket: str, timeout: float) -> str:
        """Return the box's new ticket as soon as a put was stored after `ticket`, or after `timeout` seconds.

        Never polls. Returns at once if something was stored since the ticket was taken.
        """

    async def discard(self, box: Box, neighbour: str) -> None:
        """Empty one slot: its edge is gone."""

    async def write_note(self, name: str, text: str) -> None:
        """Keep a small text (status, a counter) under a name for the site's other processes."""

    async def read_note(self, name: str) -> str | None:
        """The text last written under a name, or None."""

    async def close(self) -> None:
        """Release connections; further calls raise MailboxError."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One published model: sealed parameters and buffers, and what is known of it.

    `version` rises by one with each publication of the site; `metrics` are those at publication; `created_at` is in
    seconds since the Unix epoch.
    """

    version: int
    round: int
    step: int
    fingerprint: str
    metrics: Mapping[str, float]
    created_at: float
    blob: bytes


class SnapshotShelf(Protocol):
    """Where a trainer lays model snapshots and inference picks them up. MailboxError from every method."""

    async def publish(self, snapshot: Snapshot) -> None:
        """Lay a snapshot on the shelf; the oldest beyond the shelf's capacity go."""

    async def newest_version(self) -> int | None:
        """The highest version on the shelf, or None."""

    async def load(self, version: int | None = None) -> Snapshot | None:
        """One snapshot (the newest if None), or None if it is not there."""

    async def wait(self, after: int, timeout: float) -> int | None:
        """The newest version as soon as it is greater than `after`, or whatever it is after `timeout` seconds."""

    async def close(self) -> None:
        """Release connections."""
