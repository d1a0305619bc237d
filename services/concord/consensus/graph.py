"""Who exchanges with whom: the graph of sites, by name or edge by edge, checked before anything starts.

Every site computes the graph for itself from the job, so it depends on nothing but the arguments. Must not
know algorithms, tensors or addresses, and stays free of heavy imports.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from concord.errors import TopologyError
from concord.suggest import unknown

EdgeList = Iterable[Sequence[str]] | Mapping[str, Iterable[str]]
"""Pairs of sites in either direction, or for each site all of its neighbours."""

_DRAWS = 200
"""How many random regular graphs are drawn before giving up on a connected one."""


@dataclass(frozen=True, slots=True)
class Topology:
    """A connected undirected graph of sites; each edge is one pair in alphabetical order.

    TopologyError if a site is named twice, if an edge names an unknown site or joins a site to itself, or if
    some sites cannot reach others. One site without edges is a topology.
    """

    sites: tuple[str, ...]
    edges: frozenset[tuple[str, str]]

    def __post_init__(self) -> None:
        _check_sites(self.sites)
        for edge in sorted(self.edges):
            _check_edge(edge, self.sites)
        components = list(_components(self))
        if len(components) > 1:
            groups = " | ".join(", ".join(group) for group in components)
            raise TopologyError(f"the topology is not connected; it falls apart into {groups}")

    def neighbours(self, site: str) -> tuple[str, ...]:
        """The sites that share an edge with `site`, sorted; TopologyError if the site is unknown."""
        if site not in self.sites:
            raise TopologyError(unknown("site", site, self.sites))
        return tuple(sorted(right if left == site else left for left, right in self.edges if site in (left, right)))

    def degree(self, site: str) -> int:
        """How many neighbours `site` has."""
        return len(self.neighbours(site))


def topology_kinds() -> tuple[str, ...]:
    """The names `build_topology` knows, sorted."""
    return tuple(sorted(_BUILDERS))


def build_topology(
    kind: str,
    sites: Sequence[str],
    *,
    degree: int | None = None,
    seed: int = 0,
    columns: int | None = None,
    edges: EdgeList | None = None,
) -> Topology:
    """The topology of a name over `sites`, in their order; TopologyError says what cannot be.

    `degree` and `seed` belong to random-regular, `columns` to grid (default: as square as the number of sites
    allows), `edges` to edges. The first site is the hub of a star.
    """
    builder = _BUILDERS.get(kind)
    if builder is None:
        raise TopologyError(unknown("topology", kind, _BUILDERS))
    given = {"degree": degree, "columns": columns, "edges": edges}
    for option, value in given.items():
        if value is not None and _OPTIONS.get(kind) != option:
            raise TopologyError(f"the topology {kind} takes no {option}")
    names = tuple(sites)
    _check_sites(names)
    return Topology(names, builder(names, _Options(degree, seed, columns, edges)))


@dataclass(frozen=True, slots=True)
class _Options:
    degree: int | None
    seed: int
    columns: int | None
    edges: EdgeList | None


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one <= other else (other, one)


def _circulant(sites: tuple[str, ...], hops: Iterable[int]) -> frozenset[tuple[str, str]]:
    """Every site joined to those `hops` places on, round the circle."""
    count = len(sites)
    numbered = [(here, (here + hop) % count) for hop in hops for here in range(count)]
    return frozenset(_pair(sites[here], sites[there]) for here, there in numbered if here != there)


def _ring(sites: tuple[str, ...], _: _Options) -> frozenset[tuple[str, str]]:
    return _circulant(sites, (1,))


def _double_ring(sites: tuple[str, ...], _: _Options) -> frozenset[tuple[str, str]]:
    return _circulant(sites, (1, 2))


def _exponential(sites: tuple[str, ...], _: _Options) -> frozenset[tuple[str, str]]:
    """Hops of 1, 2, 4, ... places, each edge used both ways."""
    return _circulant(sites, [2**power for power in range(len(sites).bit_length()) if 2**power < len(sites)])


def _complete(sites: tuple[str, ...], _: _Options) -> frozenset[tuple[str, str]]:
    return _circulant(sites, range(1, len(sites)))


def _star(sites: tuple[str, ...], _: _Options) -> frozenset[tuple[str, str]]:
    hub, *leaves = sites
    return frozenset(_pair(hub, leaf) for leaf in leaves)


def _chain(sites: tuple[str, ...], _: _Options) -> frozenset[tuple[str, str]]:
    return frozenset(_pair(*link) for link in itertools.pairwise(sites))


def _grid(sites: tuple[str, ...], options: _Options) -> frozenset[tuple[str, str]]:
    columns = _squarest(len(sites)) if options.columns is None else options.columns
    if columns < 1 or len(sites) % columns:
        raise TopologyError(f"{len(sites)} sites do not fill a grid of {columns} columns")
    rows = [sites[start : start + columns] for start in range(0, len(sites), columns)]
    lines = [*rows, *zip(*rows, strict=True)]
    return frozenset(edge for line in lines for edge in _chain(line, options))


def _squarest(count: int) -> int:
    """The columns of the most square grid; an error rather than a chain that calls itself a grid."""
    rows = max(rows for rows in range(1, math.isqrt(count) + 1) if count % rows == 0)
    if rows == 1 and count > 3:
        raise TopologyError(f"{count} sites make no grid of two or more rows; choose another number or a chain")
    return count // rows


def _random_regular(sites: tuple[str, ...], options: _Options) -> frozenset[tuple[str, str]]:
    degree = _possible_degree(options.degree, len(sites))
    if degree == 0:
        return frozenset()
    import networkx  # only this kind of graph is worth its import time

    generator = random.Random(options.seed)  # noqa: S311  (a graph drawn alike everywhere, not a secret)
    for _ in range(_DRAWS):
        graph = networkx.random_regular_graph(degree, len(sites), seed=generator)
        if networkx.is_connected(graph):
            return frozenset(_pair(sites[here], sites[there]) for here, there in graph.edges)
    raise TopologyError(f"no connected graph of degree {degree} over {len(sites)} sites in {_DRAWS} draws")


def _possible_degree(degree: int | None, count: int) -> int:
    if degree is None:
        raise TopologyError("the topology random-regular needs a degree")
    if not 0 <= degree < count:
        raise TopologyError(f"degree {degree} is impossible: {count} sites allow 0 to {count - 1}")
    if degree * count % 2:
        raise TopologyError(f"degree {degree} is impossible: {count} sites need an even degree")
    if degree < 2 < count or (degree == 0 and count == 2):
        raise TopologyError(f"degree {degree} is impossible: it cannot connect {count} sites")
    return degree


def _explicit(sites: tuple[str, ...], options: _Options) -> frozenset[tuple[str, str]]:
    if options.edges is None:
        raise TopologyError("the topology edges needs a list of edges")
    listed = _mirrored(options.edges) if isinstance(options.edges, Mapping) else options.edges
    pairs = [tuple(edge) for edge in listed]
    for pair in pairs:
        if len(pair) != 2:
            raise TopologyError(f"an edge joins two sites; {list(pair)} names {len(pair)}")
    return frozenset(_pair(one, other) for one, other in pairs)


def _mirrored(neighbours: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """The edges of a neighbour table, in which both ends must list each other."""
    arrows = [(site, other) for site, others in neighbours.items() for other in others]
    listed = set(arrows)
    for site, other in arrows:
        if (other, site) not in listed:
            raise TopologyError(f"{site} lists {other} as a neighbour, but {other} does not list {site}")
    return arrows


def _check_sites(sites: tuple[str, ...]) -> None:
    if not sites:
        raise TopologyError("a topology needs at least one site")
    twice = sorted({site for site in sites if sites.count(site) > 1})
    if twice:
        raise TopologyError(f"named twice among the sites: {', '.join(twice)}")


def _check_edge(edge: tuple[str, str], sites: tuple[str, ...]) -> None:
    left, right = edge
    for site in edge:
        if site not in sites:
            raise TopologyError(f"the edge {left} - {right} names an {unknown('site', site, sites)}")
    if left == right:
        raise TopologyError(f"{left} cannot be its own neighbour")
    if left > right:
        raise TopologyError(f"the edge {left} - {right} must be given in alphabetical order")


def _components(topology: Topology) -> Iterator[tuple[str, ...]]:
    """The groups of sites that can reach one another, each sorted."""
    waiting = dict.fromkeys(topology.sites)
    while waiting:
        group = [next(iter(waiting))]
        del waiting[group[0]]
        for site in group:
            found = [other for other in topology.neighbours(site) if other in waiting]
            group.extend(found)
            for other in found:
                del waiting[other]
        yield tuple(sorted(group))


_BUILDERS: Mapping[str, Callable[[tuple[str, ...], _Options], frozenset[tuple[str, str]]]] = {
    "ring": _ring,
    "double-ring": _double_ring,
    "multiplex-ring": _double_ring,
    "star": _star,
    "chain": _chain,
    "grid": _grid,
    "complete": _complete,
    "random-regular": _random_regular,
    "exponential": _exponential,
    "edges": _explicit,
}
_OPTIONS = {"random-regular": "degree", "grid": "columns", "edges": "edges"}
