"""Runs a grid of jobs over seeds, one after the other or in processes of their own; the results are the same bytes.

Takes torch: imported inside commands only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import fmean

import torch

from concord.apps.device import CPU, usable_device
from concord.apps.simulation import build_experiment, reference, with_seed
from concord.errors import EnvironmentProblem
from concord.job import Job
from concord.simulate.experiment import Progress, Run
from concord.simulate.report import Point, Reference, SeedRun, Took, last_rows

Settings = Mapping[str, object]
"""What a point of the grid sets: key of the job -> value."""

Told = Callable[[str, float], None]
"""Told which case runs, and how many are done; parts of one included, if all run in this process."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One point with one seed."""

    name: str
    seed: int
    job: Job


@dataclass(frozen=True, slots=True)
class Sweep:
    """One job per point of a grid, each to be run with `seeds` seeds; `with_reference` adds pooled training.

    `threads` are those of one tensor operation, `workers` is how many cases run at once, each in a process of its own,
    and `device` where models and data are.
    """

    points: Sequence[tuple[Settings, Job]]
    seeds: int
    with_reference: bool
    threads: int
    workers: int = 1
    device: torch.device = CPU

    def run(self, told: Told) -> list[Point]:
        """All points, in order. EnvironmentProblem if a worker is killed."""
        torch.set_num_threads(self.threads)
        cases = [self._case(*point, seed) for point in self.points for seed in range(self.seeds)]
        alone = min(self.workers, len(cases)) == 1
        runs = self._in_turn(cases, told) if alone else self._in_processes(cases, told)
        return [
            Point(settings, job.algorithm.name, runs[index * self.seeds : (index + 1) * self.seeds])
            for index, (settings, job) in enumerate(self.points)
        ]

    def _case(self, settings: Settings, job: Job, seed: int) -> _Case:
        label = Point(settings, job.algorithm.name, ()).label or job.algorithm.name
        return _Case(f"{label} · seed {seed}", seed, with_seed(job, seed))

    def _in_turn(self, cases: Sequence[_Case], told: Told) -> list[SeedRun]:
        known: dict[str, Reference] = {}
        results = []
        for done, case in enumerate(cases):
            run, took = _simulate(case.job, self.device, _shifted(told, case.name, done))
            key = self._reference_key(case.job, run)
            if key and key not in known:
                known[key] = _train_pooled(case.job, _steps(run), self.device)
            results.append(SeedRun(case.seed, run, known.get(key), took))
            told(case.name, done + 1)
        return results

    def _in_processes(self, cases: Sequence[_Case], told: Told) -> list[SeedRun]:
        known: dict[str, Future[Reference]] = {}
        runs = []
        with _workers(min(self.workers, len(cases)), self.threads, self.device) as workers:
            begun = [workers.submit(_simulate, case.job, self.device) for case in cases]
            for done, (case, future) in enumerate(zip(cases, begun, strict=True)):
                told(case.name, done)
                run, took = future.result()
                key = self._reference_key(case.job, run)
                if key and key not in known:
                    known[key] = workers.submit(_train_pooled, case.job, _steps(run), self.device)
                runs.append((case.seed, run, key, took))
            told("all data in one place", len(cases))
            references = {key: future.result() for key, future in known.items()}
        return [SeedRun(seed, run, references.get(key), took) for seed, run, key, took in runs]

    def _reference_key(self, job: Job, run: Run) -> str:
        """Runs that differ only in what pooled training does not know share one; empty: none is wanted."""
        steps = _steps(run)
        return f"{job.task!r} {job.site_names!r} {job.training!r} {steps}" if self.with_reference and steps else ""


@contextmanager
def _workers(count: int, threads: int, device: torch.device) -> Iterator[ProcessPoolExecutor]:
    """Processes begun afresh, so that what this one has done to torch does not matter."""
    workers = ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=_prepare, initargs=(threads, str(device))
    )
    try:
        yield workers
    except BrokenProcessPool as error:
        raise EnvironmentProblem("a worker was killed, for want of memory perhaps: try fewer --workers") from error
    finally:
        workers.shutdown(cancel_futures=True)


def _prepare(threads: int, device: str) -> None:
    torch.set_num_threads(threads)
    usable_device(device)


def _simulate(job: Job, device: torch.device, progress: Progress = lambda _: None) -> tuple[Run, Took]:
    began, busy = time.perf_counter(), time.process_time()
    # Dropout draws from torch's own generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.training.seed)
        run = build_experiment(job, device).run(progress)
    return run, Took(time.perf_counter() - began, time.process_time() - busy)


def _train_pooled(job: Job, steps: int, device: torch.device) -> Reference:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.training.seed)
        return reference(job, steps, device)


def _steps(run: Run) -> int:
    """Of the average site."""
    return round(fmean(row.step for row in last_rows(run)))


def _shifted(told: Told, name: str, done: int) -> Progress:
    return lambda share: told(name, done + share)
