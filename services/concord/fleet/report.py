"""The state of a federation as JSON, for people and for the console. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from concord.fleet.presence import Presence
from concord.fleet.sites import Problem, Sighting
from concord.job.membership import Membership


def report(
    federation: str,
    membership: Membership | None,
    sightings: Mapping[str, Sighting],
    presence: Presence,
    waiting: Iterable[str],
    problems: Iterable[Problem],
) -> dict[str, object]:
    """What holds now; the same for the same state, so that a change can be noticed."""
    members = membership.sites if membership else {}
    everyone = sorted({*members, *sightings})
    return {
        "federation": federation,
        "version": membership.version if membership else None,
        "edges": len(membership.edges) if membership else 0,
        "ready": [site for site in everyone if _ready(sightings, site)],
        "not_ready": [site for site in everyone if not _ready(sightings, site)],
        "waiting": sorted(waiting),
        "sites": {site: _site(site, membership, sightings.get(site), presence) for site in everyone},
        "problems": sorted(f"{problem.reason}: {problem.note}" for problem in problems),
    }


def _ready(sightings: Mapping[str, Sighting], site: str) -> bool:
    return site in sightings and sightings[site].ready


def _site(site: str, membership: Membership | None, seen: Sighting | None, presence: Presence) -> dict[str, object]:
    return {
        "member": membership is not None and site in membership.sites,
        "neighbours": sorted(membership.epochs(site)) if membership else [],
        "ready": seen is not None and seen.ready,
        "not_ready_since": presence.since(site),
        "service": seen.service if seen else None,
        "pods": [
            {"name": pod.name, "phase": pod.phase, "node": pod.node, "zone": pod.zone}
            for pod in (seen.pods if seen else ())
        ],
    }
