"""Plays one schedule on a federation of its own, and judges it."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from chaos.attack import attack
from chaos.audit import audit, refusals
from chaos.faults import ABSENCES, KINDS, Undo
from chaos.federation import Federation, build, running
from chaos.schedule import Planned
from chaos.watch import Watcher
from concord.job import Job, parse_job

JOB = """\
name: chaos
task: digits
sites: 4
split: {kind: classes-per-site, classes: [5, 5], seed: 4}
topology: ring
algorithm: ecl-isvr
training: {rounds: 400, pace: 0.05, local_steps: 8, batch_size: 32, learning_rate: 0.5}
exchange: {timeout: 2}
checkpoint: {every: 0.5}
serving: {every: 0.5}
"""
PATIENCE = 180.0
"""Seconds that a run may take in all; a site that is not done by then hangs."""
_TICK = 0.02
_ATTACK_EVERY = 0.4


@dataclass(slots=True)
class Struck:
    """A fault as it was: `ended` in seconds after training began, `recovered` in seconds after that."""

    plan: Planned
    began: float
    ended: float | None = None
    recovered: float | None = None


@dataclass(slots=True)
class Outcome:
    """What came of one seed. `accuracy` is the mean over the sites that are there at the end."""

    seed: int
    seconds: float
    accuracy: float | None
    by_site: dict[str, float | None]
    gone: list[str]
    faults: list[dict[str, object]]
    unfinished: list[str]
    problems: list[str]
    attacks: dict[str, int]
    refused: dict[str, int]
    deaths: list[str]
    load: float

    @property
    def accepted(self) -> int:
        """Corrupt updates that were let in."""
        return sum(count for name, count in self.attacks.items() if name.startswith("accepted"))


@dataclass(slots=True)
class Play:
    """One run as it happens."""

    world: Federation
    plan: Sequence[Planned]
    seed: int
    patience: float
    watcher: Watcher = field(init=False)
    struck: list[Struck] = field(default_factory=list)
    attacks: Counter[str] = field(default_factory=Counter)
    _agenda: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: itertools.count[int] = field(default_factory=itertools.count)
    _zero: float = 0.0

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.world)

    def run(self) -> None:
        """From the first step to the last site's end, or the end of patience."""
        deadline = time.monotonic() + self.patience
        self.watcher.start()
        try:
            self._until(self._all_step, deadline)
            self._zero = time.monotonic()
            for planned in self.plan:
                self._at(planned.at, lambda planned=planned: self._strike(planned))
            if self.plan:
                self._at(_ATTACK_EVERY, self._attack)
            self._until(self._over, deadline)
            time.sleep(1.0)  # what was said last still has to arrive
        finally:
            self.watcher.stop()
        for struck in self.struck:
            if struck.ended is not None:
                struck.recovered = self.watcher.recovered(struck.plan.site, struck.ended + self._zero)

    def _until(self, done: Callable[[], bool], deadline: float) -> None:
        while not done() and time.monotonic() < deadline:
            while self._agenda and self._agenda[0][0] <= time.monotonic():
                heapq.heappop(self._agenda)[2]()
            self.world.tend()
            time.sleep(_TICK)

    def _at(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self._zero + seconds, next(self._number), act))

    def _strike(self, planned: Planned) -> None:
        struck = Struck(planned, self._now())
        site = self.world.sites[planned.site]
        undo = KINDS[planned.kind].begin(self.world, site, random.Random(f"{self.seed} {planned}"))
        self.struck.append(struck)
        if undo is not None:
            self._at(self._now() + planned.lasts, lambda: self._end(struck, undo))

    def _end(self, struck: Struck, undo: Undo) -> None:
        """End a fault, unless its site left meanwhile for reasons of its own."""
        absent = any(
            other is not struck and other.ended is None and other.plan.site == struck.plan.site
            for other in self.struck
            if other.plan.kind in ABSENCES
        )
        if not absent:
            undo()
            struck.ended = self._now()
            return
        self._at(self._now() + 0.1, lambda: self._end(struck, undo))

    def _attack(self) -> None:
        draw = random.Random(f"{self.seed} {self._now()}")
        victims = [site for site in self.world.sites.values() if site.present]
        attack(self.world, draw.choice(victims), draw, self.attacks)
        self._at(self._now() + _ATTACK_EVERY, self._attack)

    def _now(self) -> float:
        return time.monotonic() - self._zero

    def _all_step(self) -> bool:
        lasts = [self.watcher.last(name) for name, site in self.world.sites.items() if site.present]
        return all(last is not None and last.step > 0 for last in lasts)

    def _over(self) -> bool:
        if len(self.struck) < len(self.plan):
            return False
        present = [name for name, site in self.world.sites.items() if site.present]
        if not all(self.watcher.finished(name) for name in present):
            return False
        return all(struck.ended is not None or self._left(struck) for struck in self.struck)

    def _left(self, struck: Struck) -> bool:
        return not self.world.sites[struck.plan.site].present


def play(
    seed: int,
    plan: Sequence[Planned],
    job: Job | None = None,
    patience: float = PATIENCE,
    without: str | None = None,
) -> Outcome:
    """One run under this plan; an empty one is the undisturbed run, `without` a site if so said."""
    job = job or parse_job(JOB)
    began = time.monotonic()
    # Not pytest's own folder: its path may be too long for a socket.
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        running(build(job, Path(name), seed), without) as world,
    ):
        run = Play(world, plan, seed, patience)
        run.run()
        present = {name for name, site in world.sites.items() if site.present}
        by_site = {name: last.accuracy for name in sorted(present) if (last := run.watcher.last(name)) is not None}
        gone = [name for name in world.sites if name not in present]
        known = [value for value in by_site.values() if value is not None]
        return Outcome(
            seed=seed,
            seconds=round(time.monotonic() - began, 1),
            accuracy=fmean(known) if len(known) == len(present) else None,
            by_site=by_site,
            gone=gone,
            faults=[asdict(struck) for struck in run.struck],
            unfinished=sorted(name for name in present if not run.watcher.finished(name)),
            problems=audit(world, run.watcher),
            attacks=dict(run.attacks),
            refused=dict(refusals(world)),
            deaths=[f"{site.name} {death}" for site in world.sites.values() for death in site.deaths],
            load=round(os.getloadavg()[0], 1),
        )
