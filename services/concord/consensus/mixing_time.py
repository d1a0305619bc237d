"""How long news needs to cross a graph: what a site cannot know from its own neighbours."""

from __future__ import annotations

from functools import lru_cache

import torch

_SLOWEST = 1 - 1e-9
"""Eigenvalues above it are of parts of the graph that hear nothing of each other, which never mix."""
_TRIED = 128
"""Up to so many sites each is left out once."""
_RING_BROKEN = 4
"""What losing a site may do to the mixing time: a large ring becomes a chain."""
_AWAY = 0.4
"""How much the graph without a site counts: sites come back, or are taken off the list of members."""


@lru_cache(maxsize=16)
def slowest_mixing(edges: frozenset[tuple[str, str]]) -> float:
    """The `mixing_time` of the graph with all its sites, or two fifths of that with one away, whichever is longest.

    Of more than 128 sites none is left out: it is taken to be what that does to a ring.
    """
    sites = {site for edge in edges for site in edge}
    if len(sites) > _TRIED:
        return _AWAY * _RING_BROKEN * mixing_time(edges)
    away = max((mixing_time(frozenset(edge for edge in edges if site not in edge)) for site in sites), default=1.0)
    return max(mixing_time(edges), _AWAY * away)


def mixing_time(edges: frozenset[tuple[str, str]]) -> float:
    """Rounds in which averaging between neighbours takes the slowest disagreement to 1/e: 1 / (1 - lambda_2), >= 1.

    lambda_2 is the second largest eigenvalue of the Metropolis weights 1 / (1 + max(E_i, E_j)) (Xiao, Boyd and Kim
    2007). About 0.3 n^2 on a chain of n sites, 0.08 n^2 on a ring, 1 where all are neighbours.
    """
    places = {site: place for place, site in enumerate(sorted({site for edge in edges for site in edge}))}
    ends = torch.tensor([[places[left], places[right]] for left, right in edges], dtype=torch.long).reshape(-1, 2)
    degrees = ends.flatten().bincount(minlength=len(places))
    weights = torch.zeros(len(places), len(places), dtype=torch.float64)
    weights[ends[:, 0], ends[:, 1]] = 1 / (1 + degrees[ends].amax(dim=1).double())
    weights = weights + weights.T
    values: list[float] = torch.linalg.eigvalsh(weights + torch.diag(1 - weights.sum(dim=1))).tolist()
    return 1 / (1 - max((value for value in values if 0 < value < _SLOWEST), default=0.0))
