"""How one site comes into the graph: into the ring, and then by chords to sites far away. Pure.

At most `degree` edges are added and two removed.
"""

from __future__ import annotations

from concord.fleet.draft import Draft, Edge
from concord.job.membership import Member

_GAP, _BESIDE, _SPLIT, _LOOSE = range(4)
"""Places in the ring, best first: closing a gap, beside an edge that stays, instead of an edge, at one end only."""


def join(draft: Draft, site: str, member: Member) -> bool:
    """Add `site` with its edges; False, and no change, if no other site can exchange with it and has room."""
    if not draft.order:
        draft.enter(site, member)
        draft.order.append(site)
        return True
    draft.enter(site, member)
    if not (_into_ring(draft, site) or _anywhere(draft, site)):
        draft.leave(site)
        return False
    _reach_out(draft, site)
    return True


def _into_ring(draft: Draft, site: str) -> bool:
    """Between the two sites where fewest edges change; of equals the last, so that the order is that of coming."""
    ranked = [(_rank(draft, site, link), link) for link in reversed(draft.links())]
    best = min((rank for rank, _ in ranked if rank is not None), default=None)
    if best is None:
        return False
    places = [link for rank, link in ranked if rank == best]
    left, right = _far_from_room(draft, places) if best == _SPLIT else places[0]
    if best == _SPLIT:
        _split(draft, site, (left, right))
    for end in dict.fromkeys((left, right)):
        if draft.may_add(site, end) and draft.room(end):
            draft.add(site, end)
    draft.place_after(site, left)
    return True


def _rank(draft: Draft, site: str, link: Edge) -> int | None:
    """How good a place is; None if the site can be tied to neither end."""
    left, right = link
    talks = [end for end in link if draft.may_add(site, end)]
    open_ends = [end for end in talks if draft.room(end)]
    if len(open_ends) == 2:
        return _BESIDE if left == right or draft.has(left, right) else _GAP
    if len(talks) == 2 and left != right and draft.has(left, right):
        return _SPLIT
    return _LOOSE if open_ends else None


def _far_from_room(draft: Draft, links: list[Edge]) -> Edge:
    """The link farthest from the sites that have room, so that the chord to one of them will be a long one."""
    roomy = [draft.distances(site) for site in draft.order if draft.room(site)]
    if not roomy:
        return links[0]
    return max(links, key=lambda link: min(away[end] for away in roomy for end in link))


def _anywhere(draft: Draft, site: str) -> bool:
    """Where the ring has no place for a site that few can exchange with: in the place of a chord."""
    for one, other in draft.chords():
        if draft.may_add(site, one) and draft.may_add(site, other):
            _split(draft, site, (one, other))
            draft.place_after(site, one)
            return True
    return False


def _reach_out(draft: Draft, site: str) -> None:
    """Chords to the farthest sites that have room; if there are none, take the place of one distant chord."""
    while draft.room(site):
        away = draft.distances(site)
        places = {other: place for place, other in enumerate(draft.order)}
        open_sites = [other for other in draft.order if draft.may_add(site, other) and draft.room(other)]
        if not open_sites:
            break
        draft.add(site, min(open_sites, key=lambda other: (-away[other], draft.degree(other), places[other])))
    if draft.degree(site) + 2 <= draft.limit:
        away = draft.distances(site)
        chords = [chord for chord in draft.chords() if all(draft.may_add(site, end) for end in chord)]
        if chords:
            _split(draft, site, min(chords, key=lambda chord: (-min(away[end] for end in chord), chord)))


def _split(draft: Draft, site: str, edge: Edge) -> None:
    draft.cut(*edge)
    for end in edge:
        draft.add(site, end)
