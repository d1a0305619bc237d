"""What a site's brain may ask its loop to do, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from concord.errors import UpdateRefused
from concord.site.edges import EdgeTable
from concord.wire.messages import Header, Update


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the site's exchange about the model and its edges."""

    table: EdgeTable


@dataclass(frozen=True, slots=True)
class Publish:
    """Lay these updates, one per neighbour, in the outbox. `sent_at` is the caller's to fill."""

    updates: Sequence[Update]


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate the present model and report with `Evaluated` before the next action."""


@dataclass(frozen=True, slots=True)
class SaveCheckpoint:
    """Save everything a restart needs."""


@dataclass(frozen=True, slots=True)
class PublishSnapshot:
    """Lay the present model on the shelf as this version."""

    version: int


@dataclass(frozen=True, slots=True)
class ReportStatus:
    """Make the present status known."""


@dataclass(frozen=True, slots=True)
class RollBack:
    """Too many steps in a row had no finite gradient: go back to the last good checkpoint."""

    bad_steps: int


@dataclass(frozen=True, slots=True)
class Rest:
    """The round took less time than its pace: do nothing for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Absorbed:
    """Tell that these updates were taken in, and that these could not be."""

    headers: Sequence[Header]
    refused: Sequence[tuple[Header, UpdateRefused]] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The job's last round is done."""


Action = (
    Announce
    | Publish
    | Evaluate
    | SaveCheckpoint
    | PublishSnapshot
    | ReportStatus
    | RollBack
    | Rest
    | Absorbed
    | Finish
)
