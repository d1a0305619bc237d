"""Runs what `concord simulate` is asked for, one after the other. Takes torch: imported inside the command only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from concord.apps.device import CPU
from concord.apps.simulation import build_experiment, reference, with_seed
from concord.job import Job
from concord.simulate.experiment import Progress, Run
from concord.simulate.report import Point, Reference, SeedRun, last_rows

Settings = Mapping[str, object]
"""What a point of the grid sets: key of the job -> value."""

Told = Callable[[str, float], None]
"""Told which case runs, and how many are done, parts of one included."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One job per point of a grid, each to be run with `seeds` seeds; `with_reference` adds pooled training.

    `threads` are those of one tensor operation, `device` is where models and data are.
    """

    points: Sequence[tuple[Settings, Job]]
    seeds: int
    with_reference: bool
    threads: int
    device: torch.device = CPU

    def run(self, told: Told) -> list[Point]:
        """All points, in order."""
        torch.set_num_threads(self.threads)
        known: dict[str, Reference] = {}
        return [self._point(index, settings, job, known, told) for index, (settings, job) in enumerate(self.points)]

    def _point(self, index: int, settings: Settings, job: Job, known: dict[str, Reference], told: Told) -> Point:
        runs = []
        for seed in range(self.seeds):
            name = f"{Point(settings, job.algorithm.name, ()).label or job.algorithm.name} · seed {seed}"
            done = index * self.seeds + seed
            run = self._run(with_seed(job, seed), _shifted(told, name, done))
            runs.append(SeedRun(seed, run, self._reference(with_seed(job, seed), run, known)))
            told(name, done + 1)
        return Point(settings, job.algorithm.name, runs)

    def _run(self, job: Job, progress: Progress) -> Run:
        # Dropout draws from torch's own generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.training.seed)
            return build_experiment(job, self.device).run(progress)

    def _reference(self, job: Job, run: Run, known: dict[str, Reference]) -> Reference | None:
        """Points that differ only in what pooled training does not know share one."""
        steps = round(fmean(row.step for row in last_rows(run)))
        if not self.with_reference or not steps:
            return None
        key = f"{job.task!r} {job.site_names!r} {job.training!r} {steps}"
        if key not in known:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(job.training.seed)
                known[key] = reference(job, steps, self.device)
        return known[key]


def _shifted(told: Told, name: str, done: int) -> Progress:
    return lambda share: told(name, done + share)
