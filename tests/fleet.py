"""A fleet of bare algorithms under virtual time, with links that lose, repeat, delay and reorder messages.

One tick is the time of one local step at speed 1. Everything random comes from one seed. Knows no wire and no
mailbox: the only rule of those it keeps is that the newest message by sequence number wins.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from concord.consensus.algorithm import Algorithm, EdgeEnd, LocalStep, Message
from concord.consensus.graph import Topology
from concord.consensus.mixing_time import slowest_mixing
from concord.consensus.registry import AlgorithmOptions, build_algorithm, edge_terms
from concord.consensus.vectors import Layer

Gradient = Callable[[Tensor], Tensor]
Arrow = tuple[str, str]
"""Sender and receiver."""


@dataclass(frozen=True, slots=True)
class Link:
    """Chances (0 to 1) that a message is lost or comes twice, and the longest delay in ticks.

    Each copy is delayed by itself, evenly up to `delay`, so messages overtake one another.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """When sites act: `speeds` in own steps per tick (1 where not given, at most 1).

    A site sends over each edge with chance 1/K after each own step; in lock-step, over all after every K-th.
    """

    speeds: Mapping[str, float] = field(default_factory=dict)
    lock_step: bool = False


@dataclass(slots=True)
class _Site:
    algorithm: Algorithm
    gradient: Gradient
    speed: float
    credit: float = 0.0
    steps: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    inbox: dict[str, Message] = field(default_factory=dict)


class Fleet:
    """One algorithm per site of a topology, all from the same start, each with a gradient of its own."""

    def __init__(
        self,
        topology: Topology,
        gradients: Mapping[str, Gradient],
        start: Tensor,
        options: AlgorithmOptions,
        step: LocalStep,
        pace: Pace | None = None,
        link: Link | None = None,
        seed: int = 0,
        layers: Sequence[Layer] = (),
    ) -> None:
        self.edges = set(topology.edges)
        self.asleep: set[str] = set()
        self._options = options
        self._layers = layers
        self._step = step
        self._pace = pace or Pace()
        self._link = link or Link()
        self._random = random.Random(seed)
        self._now = 0
        self._posted = 0
        self._underway: list[tuple[int, int, Arrow, int, Message]] = []
        self._sites = {
            name: _Site(
                build_algorithm(options, start.clone(), step, layers),
                gradients[name],
                self._pace.speeds.get(name, 1.0),
            )
            for name in topology.sites
        }
        mixing = slowest_mixing(topology.edges)
        ends = {name: EdgeEnd(step, topology.degree(name), mixing) for name in topology.sites}
        self._terms = {(left, right): edge_terms(options, ends[left], ends[right]) for left, right in self.edges}
        for (left, right), terms in sorted(self._terms.items()):
            self.algorithm(left).add_neighbour(right, terms)
            self.algorithm(right).add_neighbour(left, terms)

    def algorithm(self, site: str) -> Algorithm:
        """The algorithm that runs at a site."""
        return self._sites[site].algorithm

    def restart(self, site: str) -> None:
        """Go on at a site with a new algorithm from the old one's primal and state, as from a checkpoint."""
        old = self.algorithm(site)
        new = build_algorithm(self._options, old.primal.clone(), self._step, self._layers)
        for left, right in sorted(self.edges, reverse=True):
            if site in (left, right):
                new.add_neighbour(right if site == left else left, self._terms[left, right])
        new.load_state(old.state())
        self._sites[site].algorithm = new

    def models(self, sites: Iterable[str] | None = None) -> Tensor:
        """The primals of all sites, or of some, one a row; a copy."""
        return torch.stack([self.algorithm(site).primal for site in sites or self._sites])

    def run(self, ticks: int) -> None:
        """Let virtual time go on."""
        for _ in range(ticks):
            self._now += 1
            self._deliver()
            for name, site in self._sites.items():
                if name not in self.asleep:
                    self._act(name, site)

    def run_until(self, target: Tensor, tolerance: float, limit: int, sites: Iterable[str] | None = None) -> float:
        """Run for at most `limit` ticks, until all models (or some sites') are near `target`.

        Returns the distance at the end: the largest over coordinates and sites, looked at every 200 ticks.
        """
        names = list(sites or self._sites)
        distance = float("inf")
        end = self._now + limit
        while distance > tolerance and self._now < end:
            self.run(200)
            distance = float((self.models(names) - target).abs().max())
        return distance

    def drop_site(self, site: str) -> None:
        """A decision to go on without a site: both ends of each of its edges forget them."""
        for edge in [edge for edge in self.edges if site in edge]:
            left, right = edge
            self.algorithm(left).remove_neighbour(right)
            self.algorithm(right).remove_neighbour(left)
            self.edges.remove(edge)
        for name, other in self._sites.items():
            for gone in self._sites if name == site else (site,):
                other.inbox.pop(gone, None)
        self.asleep.add(site)

    def _act(self, name: str, site: _Site) -> None:
        """Absorb, step, compute what is to be sent, send."""
        site.credit += site.speed
        if site.credit < 1:
            return
        site.credit -= 1
        for sender, message in site.inbox.items():
            site.algorithm.absorb(sender, message)
        site.inbox.clear()
        site.algorithm.local_step(site.gradient(site.algorithm.primal))
        site.steps += 1
        for left, right in sorted(self.edges):
            if name in (left, right) and self._due(site):
                self._post(name, right if name == left else left)

    def _due(self, site: _Site) -> bool:
        if self._pace.lock_step:
            return site.steps % self._step.steps == 0
        return self._random.random() < 1 / self._step.steps

    def _post(self, sender: str, receiver: str) -> None:
        site = self._sites[sender]
        message = site.algorithm.outgoing(receiver)
        if not message:
            return
        site.sent[receiver] = site.sent.get(receiver, 0) + 1
        copies = 2 if self._random.random() < self._link.duplication else 1
        for _ in range(copies):
            if self._random.random() >= self._link.loss:
                due = self._now + 1 + self._random.randint(0, self._link.delay)
                self._posted += 1  # breaks ties, so that messages are never compared
                letter = (due, self._posted, (sender, receiver), site.sent[receiver], message)
                heapq.heappush(self._underway, letter)

    def _deliver(self) -> None:
        """Put what is due into the inboxes; the newest wins. A site that is down, or gone, gets nothing."""
        while self._underway and self._underway[0][0] <= self._now:
            _, _, (sender, receiver), sequence, message = heapq.heappop(self._underway)
            site = self._sites[receiver]
            known = tuple(sorted((sender, receiver))) in self.edges and receiver not in self.asleep
            if known and sequence > site.seen.get(sender, 0):
                site.seen[sender] = sequence
                site.inbox[sender] = message


@dataclass(frozen=True, slots=True)
class Quadratics:
    """f_i(w) = (w - c_i)' H_i (w - c_i) / 2 at each site, in float64; H_i (d, d) symmetric, c_i (d,)."""

    curvatures: Mapping[str, Tensor]
    centres: Mapping[str, Tensor]

    @classmethod
    def draw(cls, sites: Iterable[str], dim: int = 20, seed: int = 0, widest: float = 4.0) -> Quadratics:
        """Sites that disagree: curvatures with eigenvalues from 1 to `widest`, centres of unit variance."""
        generator = torch.Generator().manual_seed(seed)
        curvatures, centres = {}, {}
        for site in sites:
            noise = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
            axes, _ = torch.linalg.qr(noise)
            widths = 1 + (widest - 1) * torch.rand(dim, generator=generator, dtype=torch.float64)
            curvatures[site] = (axes * widths) @ axes.T
            centres[site] = torch.randn(dim, generator=generator, dtype=torch.float64)
        return cls(curvatures, centres)

    @property
    def gradients(self) -> dict[str, Gradient]:
        """The gradient function of each site."""
        return {site: self._gradient(site) for site in self.curvatures}

    def optimum(self, sites: Iterable[str] | None = None) -> Tensor:
        """The minimiser of the sum of f_i over all sites, or over some."""
        names = list(sites or self.curvatures)
        pulls = [self.curvatures[name] @ self.centres[name] for name in names]
        total = torch.stack([self.curvatures[name] for name in names]).sum(0)
        solution: Tensor = torch.linalg.solve(total, torch.stack(pulls).sum(0))
        return solution

    def _gradient(self, site: str) -> Gradient:
        curvature, centre = self.curvatures[site], self.centres[site]

        def gradient(primal: Tensor) -> Tensor:
            return curvature @ (primal - centre)

        return gradient
