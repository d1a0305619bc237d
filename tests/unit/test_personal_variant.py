"""A site's own variant of the common model: what is trained further and served, and that training goes on alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from concord.apps.trainer import build_learner, job_pack, job_task, split_options
from concord.errors import JobError, TaskError
from concord.job import Job, parse_job
from concord.learning.personal import Tuner, TuningOptions, own_names
from concord.learning.steps import Learner
from concord.learning.task import SiteData, Task
from concord.serving.predictor import Predictor
from concord.site.ports import Snapshot

JOB = """\
name: variants
task: {name: digits, options: {hidden: 32}}
sites: 4
split: {kind: classes-per-site, classes: [2, 3]}
topology: ring
training: {rounds: 30, pace: 0, local_steps: 8, learning_rate: 0.3}
serving: {personal: head}
"""
NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]


class SiteOfJob:
    """One site's learner and data, without anything that exchanges."""

    def __init__(self, job: Job) -> None:
        self.job, self.own = job, job.site("N1")
        self.task: Task = job_task(job)
        self.data: SiteData = self.task.site_data("N1", job.site_names, split_options(job))
        self.learner: Learner = build_learner(job, self.task, self.data.train, self.own)
        self.pack = job_pack(job, self.task, self.data, self.learner, self.own)

    def served(self) -> Predictor:
        packed = self.pack()
        predictor = Predictor(self.task.build_model, self.task.classes, self.task.input_shape, "digits")
        predictor.swap(Snapshot(1, 2, 3, "", {"accuracy": 0.1}, 0.0, packed.blob, personal=packed.personal))
        return predictor


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (("head",), NAMES[2:]),
        (("0.*",), NAMES[:2]),
        (("*.bias",), ["0.bias", "2.bias"]),
        (("head", "0.bias"), ["0.bias", *NAMES[2:]]),
        (("*",), NAMES),
    ],
)
def test_patterns_and_the_word_head_name_parameters(patterns: tuple[str, ...], names: list[str]) -> None:
    assert own_names(NAMES, patterns) == names


def test_a_pattern_that_matches_nothing_is_refused_by_name() -> None:
    with pytest.raises(TaskError, match=r"serving\.personal: '2\.wieght' matches none .* did you mean '2\.weight'"):
        own_names(NAMES, ["2.wieght"])


def test_the_common_model_and_the_sites_own_are_served_side_by_side() -> None:
    site = SiteOfJob(parse_job(JOB))
    common = site.served().current()
    own = common.own_variant()
    assert (common.name, own.name) == ("digits", "digits-personal")
    assert own.own_variant is not None
    ours, theirs = dict(own.module.named_parameters()), dict(common.module.named_parameters())
    assert [name for name in NAMES if ours[name] is not theirs[name]] == NAMES[2:]
    for name, parameter in site.learner.module.named_parameters():
        assert torch.equal(theirs[name], parameter)
    # On the classes that the site has, an untrained model guesses; fifty steps of its last layer are enough to know.
    inputs, targets = site.data.train.inputs, site.data.train.targets

    def accuracy(module: nn.Module) -> float:
        return float((module(inputs).argmax(dim=1) == targets).float().mean())

    assert accuracy(common.module) < 0.5
    assert accuracy(own.module) > 0.9
    assert own.snapshot.metrics.keys() == {"accuracy"}


def test_training_goes_on_to_the_bit_as_if_there_were_no_variant() -> None:
    with_variant, without = SiteOfJob(parse_job(JOB)), SiteOfJob(parse_job(JOB, ["serving.personal=null"]))
    gradients = []
    for site in (with_variant, without):
        torch.manual_seed(1)
        site.pack()
        site.learner.compute_gradient()
        gradients.append((site.learner.gradient.clone(), torch.get_rng_state(), site.learner.module.training))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])
    assert gradients[0][2]


def test_equal_models_have_equal_variants() -> None:
    site = SiteOfJob(parse_job(JOB))
    assert site.pack() == site.pack()


def test_one_that_runs_away_is_not_published() -> None:
    site = SiteOfJob(parse_job(JOB, ["serving.personal={parameters: [head], learning_rate: 3.0e+38}"]))
    predictor = site.served()
    assert predictor.current().personal is None
    assert site.pack().personal == {}


def test_a_model_of_which_parts_stay_at_the_site_has_no_variant() -> None:
    with pytest.raises(JobError, match=r"serving\.personal.*has no meaning with training\.local"):
        parse_job(JOB, ["training.local=['2.*']"])


def test_dropout_is_off_while_the_variant_is_trained() -> None:
    site = SiteOfJob(parse_job(JOB))

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 10))

    task = replace(site.task, build_model=build)
    module = task.new_model(0)
    options = TuningOptions(("head",), steps=5, learning_rate=0.1, batch_size=32, seed=0)
    tuner = Tuner(module, task, site.data, options)
    before = torch.get_rng_state()
    first, second = tuner.tune(module), tuner.tune(module)
    assert torch.equal(torch.get_rng_state(), before)
    assert first is not None
    assert second is not None
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
