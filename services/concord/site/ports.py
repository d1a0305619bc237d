"""What a site needs from the outside, as Protocols: one for its mailbox, one for its shelf of model snapshots.

Adapters in `mailbox` and `serving` satisfy them; tests run one contract suite against every adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
class Heard:
    """The newest update of one neighbour that a model has taken in: its round there, and its order on the edge."""

    round: int
    incarnation: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """What went into a model: the life of the site that trained it, and what it had heard of each neighbour by then.

    `consensus_distance` is the largest to a neighbour; None if no distance is known.
    """

    incarnation: int = 0
    heard: Mapping[str, Heard] = field(default_factory=dict)
    consensus_distance: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One published model: sealed parameters and buffers, and what is known of it.

    `version` rises by one with each publication of the site; `metrics` are those at publication, `personal` those of
    the site's own variant of the model, if the blob holds one; `created_at` is in seconds since the Unix epoch.
    """

    version: int
    round: int
    step: int
    fingerprint: str
    metrics: Mapping[str, float]
    created_at: float
    blob: bytes
    lineage: Lineage = field(default_factory=Lineage)
    personal: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, float]:
        """Tells it from any other, also from one of the same version after a shelf started over."""
        return self.version, self.created_at


@dataclass(frozen=True, slots=True)
class Marks:
    """What people, and inference, have said of the versions on a shelf.

    `pinned` ones stay there. While `held` is set it stays in service, whatever is published. `promoted` was put into
    service by hand when `floor` was the newest; only what came after that is followed. `served` is in service, as far
    as inference has said.
    """

    pinned: frozenset[int] = frozenset()
    held: int | None = None
    promoted: int | None = None
    floor: int = -1
    served: int | None = None

    @property
    def kept(self) -> frozenset[int]:
        """The versions that must not leave the shelf, besides the newest."""
        waiting = None if self.is_over(self.served) else self.promoted
        return self.pinned | {version for version in (self.held, self.served, waiting) if version is not None}

    def is_over(self, served: int | None) -> bool:
        """Whether the promotion, if there was one, has had its effect: what came after it is served by now."""
        return served is not None and served > self.floor


class Mark(StrEnum):
    """What can be said of a version: see `Marks`. To unpin the one that is held lets it go, too."""

    PIN = "pin"
    UNPIN = "unpin"
    HOLD = "hold"
    PROMOTE = "promote"
    SERVED = "served"


class MarkResult(StrEnum):
    """Whether a mark was made; `ABSENT`: no such version, or no such pin; `FULL`: too many are pinned."""

    DONE = "done"
    ABSENT = "absent"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Stock:
    """What is on a shelf at one moment: the snapshots without their blobs, oldest first, and the marks."""

    snapshots: tuple[Snapshot, ...] = ()
    marks: Marks = field(default_factory=Marks)

    def find(self, version: int | None) -> Snapshot | None:
        """The one of a version, without its blob."""
        return next((snapshot for snapshot in self.snapshots if snapshot.version == version), None)

    @property
    def newest(self) -> int:
        """The highest version; 0 if there is none."""
        return self.snapshots[-1].version if self.snapshots else 0


class SnapshotShelf(Protocol):
    """Where a trainer lays model snapshots and inference picks them up. MailboxError from every method."""

    async def publish(self, snapshot: Snapshot) -> None:
        """Lay a snapshot on the shelf; the oldest beyond the shelf's capacity go, except those that marks keep."""

    async def newest_version(self) -> int | None:
        """The highest version on the shelf, or None."""

    async def load(self, version: int | None = None) -> Snapshot | None:
        """One snapshot (the newest if None), or None if it is not there."""

    async def stock(self) -> Stock:
        """What is there."""

    async def mark(self, mark: Mark, version: int) -> MarkResult:
        """Say something of a version; one that is not on the shelf cannot be pinned, held or promoted."""

    async def ticket(self) -> str:
        """A mark of the shelf's present state, to be given to `wait`."""

    async def wait(self, ticket: str, timeout: float) -> str:
        """Return the new ticket as soon as something was published or marked (but `SERVED`) after `ticket`.

        Or after `timeout` seconds. Never polls; returns at once if that was before the call.
        """

    async def close(self) -> None:
        """Release connections."""
