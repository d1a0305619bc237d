"""What to make of the document that is found where the membership should stand. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from concord.errors import JobError
from concord.job.membership import Membership

KEY = "topology.json"
"""The key of the ConfigMap that holds the membership."""


@dataclass(frozen=True, slots=True)
class Found:
    """The membership to go on from, the version that a new one must exceed, and what was wrong, if anything.

    `rewrite`: what stands there is not this membership, so it must be written even if nothing changes.
    """

    membership: Membership | None
    floor: int
    problem: str | None = None
    rewrite: bool = False


def go_on_from(text: str | None, last_good: Membership | None) -> Found:
    """The newer of what is found (None: nothing) and the last that was good.

    A document that is newer counts, whoever wrote it. One that is broken, older, or different under the same version
    is put right: somebody laid an old one over it, or changed it without saying so.
    """
    known = last_good.version if last_good else 0
    if text is None:
        return Found(last_good, known, "it was deleted" if last_good else None, rewrite=True)
    try:
        found = Membership.from_json(text)
    except JobError as error:
        return Found(_raised(last_good, _version_in(text)), max(known, _version_in(text)), str(error), rewrite=True)
    if last_good is None or found.version > last_good.version:
        return Found(found, found.version)
    if found == last_good:
        return Found(last_good, known)
    return Found(
        _over(last_good, found),
        known,
        f"version {found.version} is not what was written, and version {known} is known; a change needs a higher one",
        rewrite=True,
    )


def _over(last_good: Membership, found: Membership) -> Membership:
    """The last good one under a version above both. Sites may have followed what was found in the meantime, so an
    edge that is not in it comes back to them, and needs an epoch that it never had.
    """
    met = set(found.edges)
    epochs = [edge.epoch for edge in (*last_good.edges, *found.edges)]
    version = max(last_good.version, found.version, *epochs, 0) + 1
    edges = tuple(edge if edge in met else edge.model_copy(update={"epoch": version}) for edge in last_good.edges)
    return last_good.model_copy(update={"version": version, "edges": edges})


def _raised(membership: Membership | None, version: int) -> Membership | None:
    """The same, which nobody can have left for a broken one, under a version above `version`."""
    if membership is None or membership.version > version:
        return membership
    return membership.model_copy(update={"version": version + 1})


def _version_in(text: str) -> int:
    """The version that a broken document meant to have; 0 if it does not say."""
    said = re.search(r'"version"\s*:\s*(\d{1,15})\b', text)
    return int(said[1]) if said else 0
