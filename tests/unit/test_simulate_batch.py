"""The batched path: the gradients of the path by site, and a fallback for models that cannot be mapped over."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from concord.apps.simulation import build_experiment
from concord.consensus.vectors import FlatModel, bind
from concord.job import parse_job
from concord.learning.samples import Samples
from concord.learning.steps import StepResult
from concord.simulate.batch import (
    GROUP_SIZES,
    MOST_TRACES,
    WORTHWHILE,
    BatchedGradients,
    LateGradients,
    choose_gradients,
)
from concord.simulate.experiment import Run, Stepping, gradients_by_site
from concord.simulate.report import last_rows

JOB = """\
name: many
task: {name: digits, options: {hidden: 16}}
sites: 70
split: iid
topology: ring
algorithm: ecl-isvr
training:
  {rounds: 6, pace: 0, local_steps: 3, batch_size: 8, momentum: 0.5, weight_decay: 0.01, clip: 1.0, mean_damping: 0.3}
simulation: {network: {loss: 0.2, latency: 0.01, jitter: exponential}, sites: {N3: {speed: 0.5}}}
"""


def batch(size: int = 6) -> Samples:
    return Samples(torch.randn(size, 4), torch.randint(0, 3, (size,)))


def chosen(template: nn.Module) -> object:
    storage = FlatModel(torch.zeros(9, 1), torch.zeros(9, 1))
    return choose_gradients(template, functional.cross_entropy, storage, batch())


def test_each_row_gets_the_gradient_of_its_own_model_and_batch() -> None:
    torch.manual_seed(0)
    modules = [nn.Sequential(nn.Linear(4, 5), nn.GroupNorm(1, 5), nn.ReLU(), nn.Linear(5, 3)) for _ in range(4)]
    size = sum(parameter.numel() for parameter in modules[0].parameters())
    storage = FlatModel(torch.zeros(4, size), torch.zeros(4, size))
    for row, module in enumerate(modules):
        bind(module, FlatModel(storage.primal[row], storage.gradient[row]))
    batches = [batch() for _ in modules]
    for module, own in zip(modules, batches, strict=True):
        functional.cross_entropy(module(own.inputs), own.targets).backward()
    expected = storage.gradient.clone()
    storage.gradient.zero_()
    together = BatchedGradients(modules[0], functional.cross_entropy, storage)
    together.compute([3, 1], [batches[3], batches[1]])
    together.compute([0], [batches[0]])
    torch.testing.assert_close(storage.gradient[[0, 1, 3]], expected[[0, 1, 3]])
    assert not storage.gradient[2].any()


def test_both_paths_lead_to_the_same_results() -> None:
    assert max(GROUP_SIZES) < 70  # several groups, and some sites by themselves
    assert WORTHWHILE < 70 * 48 * 3  # the first run goes on in batches
    runs: dict[str, Run] = {}
    for batched in ("auto", "off"):
        runs[batched] = build_experiment(parse_job(JOB, [f"simulation.batched={batched}", "training.rounds=48"])).run()
    assert runs["auto"].traffic == runs["off"].traffic
    for together, alone in zip(last_rows(runs["auto"]), last_rows(runs["off"]), strict=True):
        assert (together.site, together.step) == (alone.site, alone.step)
        assert together.loss == pytest.approx(alone.loss, rel=1e-4)


def test_a_short_run_goes_by_site_and_a_long_one_chooses_once() -> None:
    sites = list(build_experiment(parse_job(JOB, ["sites=4", "simulation.sites={}"])).sites.values())
    calls: list[int] = []

    def batched(stepping: Sequence[Stepping]) -> Sequence[StepResult]:
        calls.append(len(stepping))
        return gradients_by_site(stepping)

    chosen: list[object] = []
    late = LateGradients(lambda: chosen.append(None) or batched, after=7)
    counts = [(len(late(sites)), len(calls)) for _ in range(4)]
    assert counts == [(4, 0), (4, 0), (4, 1), (4, 2)]
    assert len(chosen) == 1


class Counting(BatchedGradients):
    """Notes how many sites each call was for."""

    def __init__(self, sites: int) -> None:
        experiment = build_experiment(parse_job(JOB, [f"sites={sites}", "simulation.sites={}"]))
        self.sites = list(experiment.sites.values())
        size = self.sites[0].learner.primal.numel()
        storage = FlatModel(torch.zeros(sites, size), torch.zeros(sites, size))
        super().__init__(self.sites[0].learner.module, functional.cross_entropy, storage)
        self.calls: list[int] = []

    def compute(self, rows: Sequence[int], batches: Sequence[Samples]) -> list[float]:
        self.calls.append(len(rows))
        return super().compute(rows, batches)


@pytest.mark.parametrize(("sites", "calls"), [(3, []), (4, [4]), (7, [4]), (13, [8, 4])])
def test_sites_are_computed_in_groups_of_few_sizes_and_the_rest_by_themselves(sites: int, calls: list[int]) -> None:
    together = Counting(sites)
    results = together(together.sites)
    assert together.calls == calls
    assert all(isinstance(result, StepResult) and result.finite for result in results)


def test_too_many_shapes_are_computed_by_site() -> None:
    together = Counting(4)
    together._traces = dict.fromkeys(range(MOST_TRACES), lambda *_: (torch.empty(0), torch.empty(0)))
    together(together.sites)
    assert together.calls == []


class Peeking(nn.Module):
    """Looks into a tensor to decide what to do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs)
        return outputs if outputs.sum() > 0 else -outputs


@pytest.mark.parametrize(
    "template",
    [
        nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)),
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
        nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten()),
        Peeking(),
    ],
    ids=["dropout", "running averages", "convolution on a CPU", "peeking"],
)
def test_what_cannot_be_mapped_over_is_computed_by_site(template: nn.Module) -> None:
    assert chosen(template) is gradients_by_site


def test_what_can_be_mapped_over_is() -> None:
    assert isinstance(chosen(nn.Linear(4, 3)), BatchedGradients)
