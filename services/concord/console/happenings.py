"""What happened at a site between two looks at it, in words for a list. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from concord.console.reading import SiteReport, State

REFUSALS_EVERY = 10.0
"""Seconds between two words on updates that one site refuses: a flood of them is one story."""


class Kind(StrEnum):
    """What an event is about; the page has a mark for each."""

    SILENT = "silent"
    RETURNED = "returned"
    RESTARTED = "restarted"
    STALLED = "stalled"
    REFUSED = "refused"
    ROLLED_BACK = "rolled-back"
    MAILBOX = "mailbox"
    FINISHED = "finished"
    MEMBERS = "members"


SERIOUS = frozenset({Kind.SILENT, Kind.STALLED, Kind.ROLLED_BACK, Kind.MAILBOX})


@dataclass(frozen=True, slots=True)
class Happening:
    """One event; `at` is in seconds since the console began."""

    at: float
    site: str
    kind: Kind
    text: str

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "at": round(self.at, 2),
            "site": self.site,
            "kind": self.kind.value,
            "serious": self.kind in SERIOUS,
            "text": self.text,
        }


def compare(before: SiteReport, now: SiteReport) -> Iterator[tuple[Kind, str]]:
    """What the difference between two answers of one site tells, but for refusals, which are told in batches."""
    if now.incarnation > before.incarnation > 0:
        yield Kind.RESTARTED, f"went on from its checkpoint at round {now.round}, life {now.incarnation}"
    if now.rollbacks > before.rollbacks:
        yield Kind.ROLLED_BACK, "its numbers ran away; it went back to its last good model"
    if now.mailbox != before.mailbox:
        yield Kind.MAILBOX, "its Redis is there again" if now.mailbox == "ok" else f"its Redis: {now.mailbox}"
    if now.state is State.FINISHED and before.state is not State.FINISHED:
        yield Kind.FINISHED, f"has done its last round, {now.round}"
    yield from _edges(before, now)


def _edges(before: SiteReport, now: SiteReport) -> Iterator[tuple[Kind, str]]:
    old, new = set(before.edges or ()), set(now.edges or ())
    if new - old and before.round > 0:
        yield Kind.MEMBERS, f"exchanges with {_names(new - old)} now"
    if old - new:
        yield Kind.MEMBERS, f"no longer exchanges with {_names(old - new)}"


def _names(sites: set[str]) -> str:
    shown = sorted(sites)[:6]
    more = len(sites) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
