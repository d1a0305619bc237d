"""Runs virtual sites over a virtual network and measures them at fixed virtual times.

Deterministic: equal sites and scenario give equal rows, to the last bit. Must not know the job, files or a real clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from typing import Protocol

from concord.learning.samples import Samples
from concord.learning.steps import Learner, StepResult
from concord.simulate.clock import Agenda, Rank, Span
from concord.simulate.network import Lane, Link, Traffic
from concord.simulate.virtual_site import VirtualSite
from concord.site.edges import Edge

EdgeKey = tuple[str, str]
"""The two sites of an edge, in alphabetical order."""


class Stepping(Protocol):
    """Whoever draws gradients: its learner, and the row of its model in the tensor of all models."""

    @property
    def learner(self) -> Learner: ...
    @property
    def row(self) -> int: ...


Gradients = Callable[[Sequence[Stepping]], Sequence[StepResult]]
"""Fills the gradient buffer of each site, whose steps all end at one instant."""

Progress = Callable[[float], None]
"""Told the share of a run that is done, from 0 to 1, now and then."""


_PROGRESS_EVERY = 200
"""Happenings between two words about progress."""


def gradients_by_site(sites: Sequence[Stepping]) -> list[StepResult]:
    """The plain path: each site computes for itself, as it would when deployed."""
    return [site.learner.compute_gradient() for site in sites]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens around the sites; times in virtual seconds.

    A local step takes `step_seconds` at speed 1. Without a `duration` the run ends when all sites have finished.
    `links` has every edge, `outages` those that are cut at times. `rounds` serves to tell how far a run is.
    """

    step_seconds: float
    evaluate_every: float
    links: Mapping[EdgeKey, Link]
    outages: Mapping[EdgeKey, Sequence[Span]] = field(default_factory=dict)
    duration: float | None = None
    rounds: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One site at one time: its own counters, and its model measured on the test samples."""

    seconds: float
    site: str
    round: int
    step: int
    loss: float
    metric: float
    bytes_sent: int


@dataclass(frozen=True, slots=True)
class Run:
    """What an experiment left behind.

    `gave_up` names sites whose gradient stayed not finite; `traffic` is the sum over both directions of all edges.
    `metrics` are all of the task's, by site and name, when the site was last measured.
    """

    rows: tuple[Row, ...]
    gave_up: tuple[str, ...]
    traffic: Traffic
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Experiment:
    """One run of `sites` whose possible `edges`, by site and neighbour, are those they have when all are present."""

    def __init__(
        self,
        scenario: Scenario,
        sites: Mapping[str, VirtualSite],
        edges: Mapping[str, Mapping[str, Edge]],
        test: Samples,
        metric: str,
        gradients: Gradients = gradients_by_site,
    ) -> None:
        self._scenario = scenario
        self.sites = sites
        self._edges = edges
        self._test = test
        self._metric = metric
        self._gradients = gradients
        self._agenda = Agenda()
        self._lanes = {(name, other): self._lane(name, other) for name in edges for other in edges[name]}
        self._epochs = dict.fromkeys(scenario.links, 1)
        self._present: set[str] = set()
        self._unfinished = set(sites)
        self._due: list[str] = []
        self._rows: list[Row] = []
        self._metrics: dict[str, Mapping[str, float]] = {}

    def run(self, progress: Progress = lambda _: None) -> Run:
        """Let virtual time go by until the end; once only."""
        self._plan()
        happened = 0
        while not self._is_over():
            self._agenda.advance()
            happened += 1
            if happened % _PROGRESS_EVERY == 0:
                progress(self._share_done())
        if not self._rows or self._rows[-1].seconds != self._agenda.now:
            self._measure()
        progress(1.0)
        return self._result()

    # --- the course of things --------------------------------------------------------------------------------

    def _plan(self) -> None:
        agenda = self._agenda
        for name, site in self.sites.items():
            faults = site.faults
            if faults.starts_present:
                agenda.add(0.0, Rank.CHANGE, partial(self._join, name))
            if faults.joins is not None:
                agenda.add(faults.joins, Rank.CHANGE, partial(self._join, name))
            if faults.leaves is not None:
                agenda.add(faults.leaves, Rank.CHANGE, partial(self._leave, name))
            for crash in faults.crashes:
                agenda.add(crash.at, Rank.CHANGE, partial(self._crash, name, crash.down))
        self._measure_again(0)

    def _is_over(self) -> bool:
        duration, next_at = self._scenario.duration, self._agenda.next_at
        if duration is None:
            return not self._unfinished or next_at is None
        if next_at is not None and next_at <= duration:
            return False
        self._agenda.now = duration
        return True

    def _share_done(self) -> float:
        scenario = self._scenario
        if scenario.duration is not None:
            return self._agenda.now / scenario.duration
        if scenario.rounds is None:
            return 0.0
        done = sum(site.brain.counters.round for site in self.sites.values())
        return done / (scenario.rounds * len(self.sites))

    # --- steps -----------------------------------------------------------------------------------------------

    def _begin(self, name: str, life: int) -> None:
        site = self.sites[name]
        if site.life != life:
            return
        if not site.trains:
            self._unfinished.discard(name)
            return
        site.begin_step(self._agenda.now)
        ends = site.faults.finish(self._agenda.now, self._scenario.step_seconds)
        self._agenda.add(ends, Rank.STEP, partial(self._fall_due, name, life))

    def _fall_due(self, name: str, life: int) -> None:
        if self.sites[name].life != life:
            return
        if not self._due:
            self._agenda.add(self._agenda.now, Rank.GROUP, self._step_together)
        self._due.append(name)

    def _step_together(self) -> None:
        """All gradients of this instant first: no site can know yet what another sends at it."""
        now = self._agenda.now
        names, self._due = self._due, []
        sites = [self.sites[name] for name in names]
        results = self._gradients(sites)
        for name, site, result in zip(names, sites, results, strict=True):
            reaction = site.end_step(now, result)
            for update in reaction.updates:
                self._lanes[name, update.header.receiver].post(update)
            if reaction.rest > 0:
                self._agenda.add(now + reaction.rest, Rank.STEP, partial(self._begin, name, site.life))
            else:
                self._begin(name, site.life)

    # --- life and membership ---------------------------------------------------------------------------------

    def _join(self, name: str) -> None:
        self._present.add(name)
        self._change_membership(name)
        self.sites[name].boot(self._agenda.now)
        self._catch_up(name)

    def _leave(self, name: str) -> None:
        site = self.sites[name]
        self._present.discard(name)
        self._change_membership(name)
        site.go_down()
        self._forget_outbox(name)
        if not site.faults.comes_back:
            self._unfinished.discard(name)

    def _change_membership(self, name: str) -> None:
        """Both ends of each edge of the site that comes or goes agree on it anew, in a new epoch."""
        now = self._agenda.now
        for other in self._edges[name]:
            if now > 0:
                self._epochs[edge_key(name, other)] += 1
            if self.sites[other].is_up:
                self.sites[other].change_edges(now, self._present_edges(other))
        self.sites[name].change_edges(now, self._present_edges(name))

    def _present_edges(self, name: str) -> dict[str, Edge]:
        if name not in self._present:
            return {}
        return {
            other: replace(edge, epoch=self._epochs[edge_key(name, other)])
            for other, edge in self._edges[name].items()
            if other in self._present
        }

    def _crash(self, name: str, down: float) -> None:
        site = self.sites[name]
        if site.is_up:
            site.go_down()
            self._forget_outbox(name)
            self._agenda.add(self._agenda.now + down, Rank.CHANGE, partial(self._restart, name, site.life))

    def _restart(self, name: str, life: int) -> None:
        site, now = self.sites[name], self._agenda.now
        if site.life != life:
            return  # it left meanwhile
        site.restart(now)
        site.change_edges(now, self._present_edges(name))
        self._catch_up(name)

    def _catch_up(self, name: str) -> None:
        """A site that boots takes what its neighbours hold for it, and goes on."""
        for other in self._edges[name]:
            self._lanes[other, name].resend()
        self._begin(name, self.sites[name].life)

    def _forget_outbox(self, name: str) -> None:
        for other in self._edges[name]:
            self._lanes[name, other].forget()

    # --- measuring -------------------------------------------------------------------------------------------

    def _measure_again(self, count: int) -> None:
        """The times are multiples, not sums, so that they do not drift."""
        at = count * self._scenario.evaluate_every

        def measure() -> None:
            self._measure()
            self._measure_again(count + 1)

        self._agenda.add(at, Rank.MEASURE, measure)

    def _measure(self) -> None:
        for name in self.sites:
            if name in self._present:
                self._rows.append(self._row(name))

    def _row(self, name: str) -> Row:
        site = self.sites[name]
        evaluation = site.learner.evaluate(self._test)
        self._metrics[name] = evaluation.metrics
        return Row(
            seconds=self._agenda.now,
            site=name,
            round=site.brain.counters.round,
            step=site.brain.counters.step,
            loss=evaluation.loss,
            metric=evaluation.metrics[self._metric],
            bytes_sent=sum(self._lanes[name, other].traffic.bytes for other in self._edges[name]),
        )

    def _result(self) -> Run:
        counts = [astuple(lane.traffic) for lane in self._lanes.values()]
        return Run(
            rows=tuple(self._rows),
            gave_up=tuple(name for name, site in self.sites.items() if site.gave_up),
            traffic=Traffic(*(sum(column) for column in zip(*counts, strict=True))),
            metrics=self._metrics,
        )

    def _lane(self, sender: str, receiver: str) -> Lane:
        key = edge_key(sender, receiver)
        rng = random.Random(f"{self._scenario.seed}/{sender}/{receiver}")  # noqa: S311  repeatable, and no secret
        outages = self._scenario.outages.get(key, ())
        return Lane(self._agenda, self._scenario.links[key], outages, rng, self.sites[receiver].deliver)


def edge_key(one: str, other: str) -> EdgeKey:
    """The edge of two sites, in whatever order they are named."""
    return (one, other) if one < other else (other, one)
