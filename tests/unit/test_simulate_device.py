"""Simulating on a device: that everything is put there, and what is said if it cannot be.

No second device with numbers can be had everywhere, so one without numbers stands for it: on `meta` a tensor has a
shape alone, and whatever a program reads out of one is made up here. What real devices refuse, mixing tensors of two
devices in one operation, is looked for at every operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from cli import runner
from concord.apps.device import usable_device
from concord.apps.simulation import build_experiment, reference
from concord.apps.trainer import job_task
from concord.consensus.vectors import FlatModel
from concord.errors import EnvironmentProblem, JobError, TaskError
from concord.job import Job, parse_job
from concord.job.names import ALGORITHMS, SERVER_ALGORITHMS
from concord.learning.samples import Samples
from concord.learning.steps import Batches
from concord.simulate.batch import BatchedGradients, choose_gradients
from concord.simulate.experiment import Experiment

JOB = """\
name: small
task: {name: digits, options: {model: mlp, hidden: 8}}
sites: 4
topology: star
split: iid
training: {rounds: 4, pace: 0, local_steps: 2, batch_size: 8, momentum: 0.5, weight_decay: 0.1, clip: 1.0}
checkpoint: {every: 0.02}
simulation:
  evaluate_every: 9
  network: {latency: 0.01, jitter: exponential, loss: 0.2, duplication: 0.1, bandwidth: 1e6}
  sites:
    N2: {crashes: [{at: 0.05, down: 0.01}]}
    N3: {speed: 0.5, joins: 0.02}
    N4: {leaves: 0.03, joins: 0.06}
"""
META = torch.device("meta")
MAY_MIX = {
    torch.Tensor.copy_,
    torch.Tensor.__getitem__,
    torch.Tensor.__setitem__,
    torch._has_compatible_shallow_copy_type,
}
"""What takes tensors of two devices: copies, indices that are on the CPU, and a question that moving a module asks."""
READS: Mapping[Callable[..., object], object] = {
    torch.Tensor.item: 0.5,
    torch.Tensor.__float__: 0.5,
    torch.Tensor.__int__: 1,
    torch.Tensor.__bool__: True,
    torch.allclose: True,
}


class Elsewhere(TorchFunctionMode):
    """Makes up what is read from tensors without numbers, and refuses to mix them with others."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        devices = {tensor.device for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        if len({tensor.device for tensor in tensors}) > 1 and func not in MAY_MIX:
            raise RuntimeError(f"{func} of {[(tuple(one.shape), str(one.device)) for one in tensors]}")
        if META in devices:
            self.operations += 1
            if func in READS:
                return READS[func]
            if func is torch.Tensor.tolist:
                return torch.full(args[0].shape, 0.5).tolist()
        return func(*args, **(kwargs or {}))


def job_of(*overrides: str) -> Job:
    return parse_job(JOB, overrides)


def run_elsewhere(job: Job) -> object:
    with Elsewhere() as seen:
        experiment = build_experiment(job, META)
        experiment.run()
    assert seen.operations > 100
    return experiment


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, *SERVER_ALGORITHMS])
def test_every_algorithm_stays_on_the_device(algorithm: str) -> None:
    experiment = run_elsewhere(job_of(f"algorithm={algorithm}", "simulation.batched=off"))
    if isinstance(experiment, Experiment):
        for site in experiment.sites.values():
            tensors, _ = site.brain.state()
            assert {tensors["primal"].device, site.learner.gradient.device} == {META}
            assert all(
                tensor.device == META for tensor in tensors.values() if tensor.is_floating_point() and len(tensor) > 1
            )


@pytest.mark.parametrize("compression", ["top-k", "low-rank", "none"])
@pytest.mark.parametrize("number_format", ["float16", "int8"])
def test_compressed_messages_stay_on_the_device(compression: str, number_format: str) -> None:
    settings = f"{{name: c-ecl, compression: {compression}, number_format: {number_format}}}"
    run_elsewhere(job_of(f"algorithm={settings}", "simulation.batched=off"))


@pytest.mark.parametrize(
    "override",
    ["training.local=['2.*']", "sites={N1: {weight: 2}, N2: , N3: , N4: }", "task.options={model: cnn}"],
    ids=["own parameters", "weights", "convolutions"],
)
def test_so_do_other_jobs(override: str) -> None:
    run_elsewhere(job_of(override, "training.rounds=2"))


def test_so_do_gradients_of_many_sites_in_one_call() -> None:
    task = job_task(job_of())
    storage = FlatModel(torch.zeros(4, 610, device=META), torch.zeros(4, 610, device=META))
    samples = task.pool().test.to(META)
    with Elsewhere():
        together = choose_gradients(task.new_model(0).to(META), task.loss, storage, samples)
        assert isinstance(together, BatchedGradients)
        together.compute([3, 1, 0, 2], [samples.select(torch.arange(2, device=META))] * 4)


def test_so_does_pooled_training() -> None:
    with Elsewhere() as seen:
        reference(job_of(), 5, META)
    assert seen.operations > 100


def test_the_guard_sees_a_tensor_in_the_wrong_place() -> None:
    with Elsewhere(), pytest.raises(RuntimeError, match="add_"):
        torch.zeros(3, device=META).add_(torch.ones(3))


def test_batches_are_the_same_wherever_the_samples_are() -> None:
    samples = Samples(torch.arange(10.0), torch.arange(10))
    here, there = Batches(samples, 3, seed=1), Batches(samples.to(META), 3, seed=1)
    for _ in range(4):
        here.draw()
        there.draw()
    assert torch.equal(here.state()["generator"], there.state()["generator"])
    there.load_state(here.state())
    assert there.state()["order"].device == META


STRAY = """\
import torch
from torch import nn

class Stray(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) + torch.ones(10)

def build():
    return Stray(64, 10)
"""


def test_a_model_with_a_tensor_elsewhere_is_told_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "stray_model.py").write_text(STRAY)
    monkeypatch.chdir(tmp_path)
    job = job_of("task={name: digits, model: 'stray_model:build'}")
    build_experiment(job)
    with Elsewhere(), pytest.raises(TaskError, match="do not fit its data"):
        build_experiment(job, META)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cpu:0", ""])
def test_a_name_that_no_device_has_is_told_as_such(name: str) -> None:
    with pytest.raises(JobError, match="should be cpu, cuda, or one of several such as cuda:1"):
        usable_device(name)


def test_the_cpu_is_always_there() -> None:
    assert usable_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_told_before_anything_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    job, out = tmp_path / "job.yaml", tmp_path / "out"
    job.write_text(JOB)
    outcome = runner(capsys)("simulate", str(job), "--device", "cuda", "--out", str(out))
    assert outcome.code == 3
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: --device cuda cannot be used: ")
    assert "; --device cpu always can [" in line
    assert not out.exists()


def test_a_device_that_is_not_there_is_a_problem_of_the_machine() -> None:
    with pytest.raises(EnvironmentProblem, match="cuda:99 cannot be used"):
        usable_device("cuda:99")
