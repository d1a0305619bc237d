"""From the membership that stands and the sites that are wanted to the membership that should be. Pure.

Whatever is decided follows from these two alone, so a new leader goes on where the last one was. The order in which
the document lists the sites is a ring; joining and leaving keep it whole once it is, so no single site that fails
cuts others off. A graph that was given otherwise is left as it is, and its ring closes bit by bit.

For sites that can all exchange with each other, with the degree bound D:
- the graph is connected, and no site gets beyond D edges (or beyond what it was given);
- a join changes at most D + 2 edges: D added, 2 removed;
- a leave of a site with d edges changes at most d + 2: its own and 2 added. If it parts the rest into m pieces, which
  a whole ring rules out, at most 2 (m - 1) more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from concord.fleet.draft import Draft, Edge, can_exchange
from concord.fleet.joining import join
from concord.fleet.leaving import leave
from concord.job.membership import Member, MemberEdge, Membership


@dataclass(frozen=True, slots=True)
class Decision:
    """The membership that should stand, how it differs, and the wanted sites for which there is no place now."""

    membership: Membership
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    added: tuple[Edge, ...] = ()
    removed: tuple[Edge, ...] = ()


def decide(previous: Membership | None, wanted: Mapping[str, Member], degree: int, floor: int = 0) -> Decision | None:
    """What should be, given what stands; the same `membership` object if nothing changes.

    None if there is nothing to decide: no site is wanted and there never was one. If no site is wanted any more, the
    last membership stands, because a graph needs a site. The new version is above `floor` too. Epochs of new edges
    are the new version, which no edge ever had before.
    """
    if previous is None:
        return _begin(wanted, degree, floor) if wanted else None
    if not wanted:
        return Decision(previous)
    draft = Draft(
        {site: wanted.get(site, member) for site, member in previous.sites.items()},
        (edge.sites for edge in previous.edges),
        degree,
    )
    going = [site for site in previous.sites if site not in wanted]
    moving = [site for site in previous.sites if site in wanted and _out_of_reach(previous, wanted, site)]
    put_out = [other for site in (*going, *moving) if site in draft.members for other in leave(draft, site)]
    # Whoever lost its place only because of others, or because it can be called otherwise now, gets a new one.
    again = [site for site in previous.sites if site in wanted and site in {*moving, *put_out}]
    new = sorted((site for site in wanted if site not in previous.sites), key=_natural)
    waiting = _join_all(draft, {site: wanted[site] for site in (*again, *new)})
    return _difference(previous, draft, floor, waiting)


def _begin(wanted: Mapping[str, Member], degree: int, floor: int) -> Decision:
    draft = Draft({}, (), degree)
    waiting = _join_all(draft, {site: wanted[site] for site in sorted(wanted, key=_natural)})
    edges = tuple(sorted(draft.edges()))
    membership = Membership(
        version=floor + 1,
        sites={site: draft.members[site] for site in draft.order},
        edges=tuple(MemberEdge(sites=edge, epoch=floor + 1) for edge in edges),
    )
    return Decision(membership, tuple(sorted(draft.members)), waiting=waiting, added=edges)


def _join_all(draft: Draft, newcomers: Mapping[str, Member]) -> tuple[str, ...]:
    """Who still waits when nobody can join any more: one may make room for another that came before it."""
    waiting = list(newcomers)
    while True:
        left_over = [site for site in waiting if not join(draft, site, newcomers[site])]
        if len(left_over) in (0, len(waiting)):
            return tuple(sorted(left_over))
        waiting = left_over


def _out_of_reach(previous: Membership, wanted: Mapping[str, Member], site: str) -> bool:
    """Whether a site was told to be called otherwise, so that one of its edges cannot carry updates any more."""
    before, now = previous.sites[site], wanted[site]
    if (before.reach, before.url is None) == (now.reach, now.url is None):
        return False
    return any(
        can_exchange(before, previous.sites[other]) and not can_exchange(now, wanted.get(other, previous.sites[other]))
        for other in previous.epochs(site)
    )


def _difference(previous: Membership, draft: Draft, floor: int, waiting: Iterable[str]) -> Decision:
    epochs = {edge.sites: edge.epoch for edge in previous.edges}
    edges = draft.edges()
    added, removed = tuple(sorted(edges - epochs.keys())), tuple(sorted(epochs.keys() - edges))
    joined = tuple(sorted(draft.members.keys() - previous.sites.keys()))
    left = tuple(sorted(previous.sites.keys() - draft.members.keys()))
    membership = previous
    if added or removed or draft.members != previous.sites:
        version = max(previous.version, floor, *epochs.values(), 0) + 1
        membership = Membership(
            version=version,
            sites={site: draft.members[site] for site in draft.order},
            edges=tuple(MemberEdge(sites=edge, epoch=epochs.get(edge, version)) for edge in sorted(edges)),
        )
    return Decision(membership, joined, left, tuple(waiting), added, removed)


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """N2 before N10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in parts], name
