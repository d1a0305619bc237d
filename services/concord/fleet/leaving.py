"""How one site leaves the graph: what it held together is tied again. Pure.

If the rest is in one piece, at most two edges are added; every further piece costs one more, and perhaps one removed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from concord.fleet.draft import Draft, Edge


def leave(draft: Draft, site: str) -> list[str]:
    """Remove `site`. The answer is empty, or names sites that nothing could tie to the rest: they are out as well."""
    before = {other: draft.degree(other) for other in draft.order}
    place, count = draft.order.index(site), len(draft.order)
    link = draft.order[place - 1], draft.order[(place + 1) % count]
    parted = draft.neighbours(site)
    draft.leave(site)
    if count <= 2:
        return []
    mending = _Mending(draft, before, link)
    put_out = mending.tie_pieces()
    mending.heal_link()
    mending.tie_parted([other for other in parted if other in draft.members])
    return put_out


class _Mending:
    """What is done after a site has left. A site has room up to the limit, or up to what it had before."""

    def __init__(self, draft: Draft, before: dict[str, int], link: Edge) -> None:
        self._draft = draft
        self._before = before
        self._link = link

    def _room(self, site: str) -> bool:
        return self._draft.degree(site) < max(self._draft.limit, self._before[site])

    def tie_pieces(self) -> list[str]:
        """Until all sites reach one another: an edge between two pieces, at best where the ring was open."""
        put_out: list[str] = []
        while len(pieces := self._draft.pieces()) > 1:
            main, *others = pieces
            if not any(self._tie(main, other) for other in others):
                for site in others[0]:
                    self._draft.leave(site)
                put_out.extend(others[0])
        return put_out

    def _tie(self, main: list[str], other: list[str]) -> bool:
        draft = self._draft
        free = [(one, two) for one, two in self._pairs(main, other) if self._room(one) and self._room(two)]
        if free:
            draft.add(*min(free, key=self._preference))
            return True
        return any(self._swap(*sides) for sides in ((main, other), (other, main)))

    def _swap(self, full: list[str], other: list[str]) -> bool:
        """Make room in a piece that has none: cut an edge that it can do without, and tie one of its ends."""
        draft = self._draft
        for one, two in draft.spare_edges(full):
            for end, site in itertools.product((one, two), other):
                if self._room(site) and draft.may_add(end, site):
                    draft.cut(one, two)
                    draft.add(end, site)
                    return True
        return False

    def _pairs(self, main: list[str], other: list[str]) -> Iterator[Edge]:
        return (edge for edge in itertools.product(main, other) if self._draft.may_add(*edge))

    def _preference(self, edge: Edge) -> tuple[bool, int, Edge]:
        return set(edge) != set(self._link), sum(self._draft.degree(end) for end in edge), edge

    def heal_link(self) -> None:
        """The neighbours in the ring close it over the gap."""
        left, right = self._link
        present = left in self._draft.members and right in self._draft.members
        if present and self._draft.may_add(left, right) and self._room(left) and self._room(right):
            self._draft.add(left, right)

    def tie_parted(self, parted: list[str]) -> None:
        """One chord between two that lost an edge: the farthest from each other, so that the graph stays small."""
        draft = self._draft
        poorer = [site for site in parted if draft.degree(site) < self._before[site] and draft.room(site)]
        choices = [
            (-draft.distances(one)[two], one, two)
            for one, two in itertools.combinations(poorer, 2)
            if draft.may_add(one, two)
        ]
        if choices:
            _, one, two = min(choices)
            draft.add(one, two)
