"""A graph of sites while it is being changed. Knows what can be done to it, not what should be done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from concord.job.membership import Member

Edge = tuple[str, str]


def pair(one: str, other: str) -> Edge:
    """Two sites as an edge, in alphabetical order."""
    return (one, other) if one <= other else (other, one)


def can_exchange(one: Member, other: Member) -> bool:
    """Whether at least one of two sites can call the other."""
    return _can_call(one, other) or _can_call(other, one)


def _can_call(caller: Member, called: Member) -> bool:
    return caller.reach != "inbound" and called.reach != "outbound" and called.url is not None


class Draft:
    """Sites in the order that means the ring, their edges, and how many edges a site may have.

    A link is a pair of sites that are next to each other in `order`, the last and the first included; the ring is
    whole if every link is an edge. An edge that is no link is a chord. Every answer is deterministic.
    """

    def __init__(self, members: Mapping[str, Member], edges: Iterable[Edge], degree: int) -> None:
        self.members = dict(members)
        self.order = list(members)
        self.limit = degree
        self._neighbours: dict[str, dict[str, None]] = {site: {} for site in members}
        for one, other in sorted(edges):
            self.add(one, other)

    # --- what it is ------------------------------------------------------------------------------------------

    def degree(self, site: str) -> int:
        """How many edges a site has."""
        return len(self._neighbours[site])

    def neighbours(self, site: str) -> list[str]:
        """The sites that share an edge with `site`, sorted."""
        return sorted(self._neighbours[site])

    def has(self, one: str, other: str) -> bool:
        """Whether two sites share an edge."""
        return other in self._neighbours[one]

    def room(self, site: str) -> bool:
        """Whether a site may have one more edge."""
        return self.degree(site) < self.limit

    def may_add(self, one: str, other: str) -> bool:
        """Whether an edge would be new and could carry updates; room is another question."""
        return one != other and not self.has(one, other) and can_exchange(self.members[one], self.members[other])

    def edges(self) -> set[Edge]:
        """All edges."""
        return {pair(one, other) for one, others in self._neighbours.items() for other in others}

    def links(self) -> list[Edge]:
        """Every site with the next one in the order, round the circle; two sites are linked twice."""
        return [(site, self.order[(place + 1) % len(self.order)]) for place, site in enumerate(self.order)]

    def chords(self) -> list[Edge]:
        """The edges that are no links, sorted."""
        return sorted(self.edges() - {pair(*link) for link in self.links()})

    def distances(self, start: str, without: Edge | None = None) -> dict[str, int]:
        """How many edges away every site is that can be reached, perhaps without one edge."""
        found = {start: 0}
        for site in (waiting := [start]):
            for other in self._neighbours[site]:
                if other not in found and pair(site, other) != without:
                    found[other] = found[site] + 1
                    waiting.append(other)
        return found

    def pieces(self) -> list[list[str]]:
        """The groups of sites that reach one another, the largest first, then by their first site in the order."""
        found: list[list[str]] = []
        seen: set[str] = set()
        for site in self.order:
            if site not in seen:
                reached = self.distances(site)
                seen.update(reached)
                found.append([other for other in self.order if other in reached])
        return sorted(found, key=len, reverse=True)

    def spare_edges(self, sites: Iterable[str]) -> Iterator[Edge]:
        """The edges from `sites` without which their ends still reach each other: chords first, both sorted."""
        own = {pair(site, other) for site in sites for other in self._neighbours[site]}
        links = {pair(*link) for link in self.links()}
        for edge in sorted(own, key=lambda edge: (edge in links, edge)):
            if edge[1] in self.distances(edge[0], without=edge):
                yield edge

    # --- what can be done ------------------------------------------------------------------------------------

    def add(self, one: str, other: str) -> None:
        """A new edge."""
        self._neighbours[one][other] = None
        self._neighbours[other][one] = None

    def cut(self, one: str, other: str) -> None:
        """One edge fewer."""
        del self._neighbours[one][other]
        del self._neighbours[other][one]

    def enter(self, site: str, member: Member) -> None:
        """A site without edges and, so far, without a place in the order."""
        self.members[site] = member
        self._neighbours[site] = {}

    def place_after(self, site: str, left: str) -> None:
        """Give a site its place in the order, after another."""
        self.order.insert(self.order.index(left) + 1, site)

    def leave(self, site: str) -> None:
        """Remove a site with its edges."""
        for other in self.neighbours(site):
            self.cut(site, other)
        del self._neighbours[site], self.members[site]
        if site in self.order:
            self.order.remove(site)
