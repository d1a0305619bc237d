"""What a simulated step costs, against a step of one model in the loop that anybody would write; and memory.

Both sides draw mini-batches of the same size from the same data and train the same model, the plain one with
`torch.optim.SGD`. They take turns, in processor time of one thread, so that other work on the machine counts little;
medians of the ratios count. What is timed of a simulation is all of a run but the loading and dealing out of data:
steps, messages, a network with chance in it, virtual time. Its test set is one sample, so that measuring is left out.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks import simulation_task
from concord.apps.simulation import build_experiment
from concord.job import parse_job
from concord.learning.samples import Samples

JOB = """\
name: cost
task: {{model: 'benchmarks.simulation_task:{model}', data: 'benchmarks.simulation_task:{data}'}}
split: iid
sites: {sites}
topology: ring
training: {{rounds: {rounds}, pace: 0, local_steps: 8, batch_size: 32, learning_rate: 0.05}}
simulation:
  evaluate_every: 1e6
  network: {{latency: 0.02, jitter: exponential, loss: 0.1}}
  sites: {{{speeds}}}
"""
BATCH, STEPS_IN_ROUND = 32, 8


@dataclass(frozen=True, slots=True)
class Case:
    """Sites of one model; `even` ones step at the same instants, others each at their own. `steps` are of all sites."""

    model: str
    data: str
    sites: int
    even: bool
    steps: int

    @property
    def job(self) -> str:
        """The text of the job that is simulated."""
        return JOB.format(
            model=self.model,
            data=self.data,
            sites=self.sites,
            rounds=self.rounds,
            speeds="" if self.even else _uneven(self.sites),
        )

    @property
    def rounds(self) -> int:
        """Of each site."""
        return max(1, self.steps // (self.sites * STEPS_IN_ROUND))


CASES = {
    "digits mlp, 8 sites in lock-step": Case("mlp", "many_digits", 8, even=True, steps=4000),
    "digits mlp, 100 sites in lock-step": Case("mlp", "many_digits", 100, even=True, steps=8000),
    "digits mlp, 8 sites, uneven": Case("mlp", "many_digits", 8, even=False, steps=2000),
    "digits mlp, 100 sites, uneven": Case("mlp", "many_digits", 100, even=False, steps=2400),
    "Fashion-MNIST cnn, 8 sites": Case("cnn", "garments", 8, even=False, steps=128),
    "Fashion-MNIST cnn, 100 sites": Case("cnn", "garments", 100, even=False, steps=800),
}


def cost(case: Case, turns: int = 5) -> float:
    """Processor time of one simulated site-step over that of one plain step."""
    _plain(case, 20)
    ratios = []
    for _ in range(turns):
        steps = case.sites * case.rounds * STEPS_IN_ROUND
        ratios.append(_simulated(case) / steps / _plain(case, max(steps // 4, 60)))
    return statistics.median(ratios)


def _simulated(case: Case) -> float:
    """Seconds of the whole run."""
    run = build_experiment(parse_job(case.job)).run
    return _seconds(run)


def _plain(case: Case, steps: int) -> float:
    """Seconds of one step."""
    train, _ = getattr(simulation_task, case.data)()
    module: nn.Module = getattr(simulation_task, case.model)()
    share = train.select(torch.randperm(len(train))[: len(train) // case.sites])
    return _seconds(lambda: _descend(module, share, steps)) / steps


def _descend(module: nn.Module, samples: Samples, steps: int) -> None:
    """What anybody would write."""
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
    done = 0
    while True:
        for batch in torch.randperm(len(samples)).split(BATCH):
            if done == steps:
                return
            optimiser.zero_grad()
            loss = cross_entropy(module(samples.inputs[batch]), samples.targets[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            done += 1


def _seconds(work: Callable[[], object]) -> float:
    before, threads = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)
    work()
    torch.set_num_threads(threads)
    return time.process_time() - before


@dataclass(frozen=True, slots=True)
class Fleet:
    """One command: processor seconds, and the greatest resident memory in MB."""

    seconds: float
    megabytes: float


def fleet(sites: int, rounds: int = 10) -> Fleet:
    """`concord simulate` of that many sites of digits, all in lock-step, as a process of its own, looked at often."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        steps = sites * rounds * STEPS_IN_ROUND
        path.write_text(Case("mlp", "many_digits", sites, even=True, steps=steps).job)
        command = [sys.executable, "-m", "concord", "simulate", str(path), "--json", "--no-reference", "--out", folder]
        process = psutil.Popen(command, stdout=subprocess.DEVNULL)
        megabytes = seconds = 0.0
        while process.poll() is None:
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                seconds, megabytes = times.user + times.system, max(megabytes, process.memory_info().rss / 1e6)
            time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return Fleet(seconds, megabytes)


def _uneven(sites: int) -> str:
    """Speeds whose steps never end together, but by chance."""
    return ", ".join(f"N{number + 1}: {{speed: {1 / (1 + number * 0.0137):.6f}}}" for number in range(sites))
