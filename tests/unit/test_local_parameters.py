"""Parameters that stay at their site: never sent, stepped by themselves, whole in checkpoints and in what is served."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import personal
from concord.apps.simulation import build_experiment
from concord.apps.trainer import job_task, split_options
from concord.consensus.algorithm import LocalStep, payload_bytes
from concord.consensus.registry import AlgorithmOptions, algorithm_names, build_algorithm
from concord.consensus.vectors import bind, fingerprint, trainable
from concord.errors import CheckpointError, TaskError
from concord.job import parse_job
from concord.learning.steps import evaluate
from concord.serving.packing import Blueprint, pack_model
from concord.simulate.experiment import Experiment
from concord.simulate.report import last_rows

QUADRATIC = """\
name: personal
task:
  model: personal:build
  data: personal:load
  loss: mean_squared_error
  metric: personal:error
sites: 4
topology: chain
training: {rounds: 240, pace: 0, local_steps: 4, batch_size: 24, learning_rate: 0.1, local: ["head.*"]}
simulation:
  evaluate_every: 1000
  network: {latency: 0.02, jitter: exponential, loss: 0.2}
  sites: {N2: {speed: 0.7}}
"""
DIGITS = """\
name: heads
task: {name: digits, options: {hidden: 32}}
sites: 4
split: {kind: classes-per-site, classes: [2, 3]}
topology: ring
training: {rounds: 60, pace: 0, local_steps: 8, learning_rate: 0.3, local: ["2.*"]}
simulation: {evaluate_every: 1000, network: {loss: 0.2}, sites: {N4: {speed: 0.5, crashes: [{at: 0.5, down: 0.1}]}}}
checkpoint: {every: 0.2}
"""
EXACT = ("ecl", "ecl-isvr", "sm-ecl", "c-ecl")


def experiment_of(text: str, *overrides: str) -> Experiment:
    return build_experiment(parse_job(text, overrides))


def digits_of(algorithm: str) -> Experiment:
    experiment = experiment_of(DIGITS, f"algorithm={algorithm}")
    experiment.run()
    return experiment


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_shared_parameters_come_first_and_values_stay() -> None:
    module = personal.build()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    flat = bind(module, local=["head.*"])
    assert list(trainable(module, ["head.*"])) == ["body.weight", "head.weight"]
    assert torch.equal(flat.shared.primal, before["body.weight"].flatten())
    assert torch.equal(flat.own.primal, before["head.weight"].flatten())
    flat.own.primal.fill_(7.0)
    assert bool((module.get_parameter("head.weight") == 7.0).all())
    assert torch.equal(module.get_parameter("body.weight"), before["body.weight"])


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["haed.weight"], "'haed.weight' matches none .* body.weight; did you mean 'head.weight'"),
        (["body.*", "Head.*"], "'Head.*' matches none .* did you mean 'head.*'"),
        (["none"], "'none' matches none of the model's parameters, which are head.weight, body.weight$"),
        (["*"], r"\* should not match all parameters, which are head.weight, body.weight"),
        (["head.*", "body.*"], "should not match all parameters"),
    ],
)
def test_patterns_that_match_nothing_or_everything_are_refused(patterns: list[str], said: str) -> None:
    with pytest.raises(TaskError, match=rf"^training\.local: .*{said}"):
        bind(personal.build(), local=patterns)


def test_the_names_of_a_large_model_are_not_all_listed() -> None:
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(6)))
    with pytest.raises(TaskError, match=r"3\.bias and 4 more"):
        bind(module, local=["head"])


def test_models_that_share_other_parts_have_other_fingerprints() -> None:
    module = mlp()
    prints = {fingerprint(module, local) for local in ((), ("3.*",), ("1.*",), ("3.bias",))}
    assert len(prints) == 4
    assert fingerprint(module, ("3.*",)) == fingerprint(module, ("3.weight", "3.bias"))


@pytest.mark.parametrize("algorithm", EXACT)
def test_the_common_part_and_each_own_part_reach_their_optimum(algorithm: str) -> None:
    experiment = experiment_of(QUADRATIC, f"algorithm={algorithm}", "algorithm.averaging=0.5", *_kept(algorithm))
    experiment.run()
    common, own = personal.optimum(list(experiment.sites))
    for site, best in zip(experiment.sites.values(), own, strict=True):
        torch.testing.assert_close(site.learner.flat.shared.primal.double(), common, rtol=0, atol=1e-5)
        torch.testing.assert_close(site.learner.flat.own.primal.double(), best, rtol=0, atol=1e-5)


def _kept(algorithm: str) -> list[str]:
    # With four steps to the round, over which 48 steps are averaged, sm-ecl takes more rounds.
    return {"c-ecl": ["algorithm.keep=0.7"], "sm-ecl": ["training.rounds=480"]}.get(algorithm, [])


@pytest.mark.parametrize("algorithm", algorithm_names())
def test_nothing_of_a_site_s_own_parameters_reaches_another(algorithm: str) -> None:
    """Where the common part does not depend on the own one, a change of the latter at one site is seen nowhere else."""
    overrides = (f"algorithm={algorithm}", "task.options.coupled=false", "training.rounds=20", "simulation.sites={}")
    usual, odd = experiment_of(QUADRATIC, *overrides), experiment_of(QUADRATIC, *overrides)
    odd.sites["N1"].learner.flat.own.primal.fill_(100.0)
    usual.run()
    odd.run()
    for name, site in usual.sites.items():
        ours, theirs = site.learner.flat, odd.sites[name].learner.flat
        assert torch.equal(ours.shared.primal, theirs.shared.primal)
        assert torch.equal(ours.own.primal, theirs.own.primal) == (name != "N1")


@pytest.mark.parametrize("algorithm", algorithm_names())
def test_messages_and_what_algorithms_remember_are_of_the_shared_part_only(algorithm: str) -> None:
    experiment = experiment_of(DIGITS, f"algorithm={algorithm}", "topology=chain", "training.rounds=2")
    run = experiment.run()
    options, step = AlgorithmOptions(algorithm), LocalStep(0.3, 8)
    shared = build_algorithm(options, torch.zeros(64 * 32 + 32), step).layout()
    whole = build_algorithm(options, torch.zeros(64 * 32 + 32 + 32 * 10 + 10), step).layout()
    brain = experiment.sites["N1"].brain
    assert brain.table().layout == shared
    assert run.traffic.bytes == run.traffic.sent * payload_bytes(shared)
    assert payload_bytes(shared) < payload_bytes(whole) or algorithm == "local"


def test_an_own_step_is_a_plain_gradient_step_at_the_site_s_rate() -> None:
    experiment = experiment_of(QUADRATIC, "sites.N1.learning_rate=0.05", "training.momentum=0.5", "training.clip=0.1")
    site = experiment.sites["N1"]
    before = site.learner.primal.clone()
    site.boot(0.0)
    result = site.learner.compute_gradient()
    gradient = site.learner.flat.own.gradient.clone()
    site.end_step(0.0, result)
    assert site.learner.gradient.norm() == pytest.approx(0.05)  # clipped as a whole; the momentum begins at zero
    assert torch.equal(site.learner.flat.own.primal, before[personal.COMMON :].add(gradient, alpha=-0.05))


@pytest.mark.parametrize("algorithm", ["ecl-isvr", "c-ecl", "gossip"])
def test_sites_with_few_classes_agree_on_the_body_and_keep_their_heads(algorithm: str) -> None:
    experiment = digits_of(algorithm)
    sites = experiment.sites
    bodies = torch.stack([site.learner.flat.shared.primal for site in sites.values()])
    heads = torch.stack([site.learner.flat.own.primal for site in sites.values()])
    assert (bodies - bodies.mean(0)).norm() < 0.5 * (heads - heads.mean(0)).norm()
    job = parse_job(DIGITS)
    task = job_task(job)
    test = task.pool().test
    for name, site in sites.items():
        classes = task.site_data(name, job.site_names, split_options(job)).train.targets.unique()
        known = test.select(torch.isin(test.targets, classes).nonzero()[:, 0])
        assert site.learner.evaluate(known).metrics["accuracy"] > 0.9


def test_each_site_is_measured_with_its_own_head() -> None:
    experiment = experiment_of(DIGITS, "simulation.sites={}")
    rows = {row.site: row for row in last_rows(experiment.run())}
    task = job_task(parse_job(DIGITS))
    test = task.pool().test
    for name, site in experiment.sites.items():
        assert rows[name].metric == evaluate(site.learner.module.eval(), task, test).metrics["accuracy"]
    assert len({row.loss for row in rows.values()}) == len(rows)


def test_the_batched_path_agrees_with_the_path_by_site() -> None:
    together, alone = (
        experiment_of(DIGITS, "simulation.sites={}", "training.rounds=4", f"simulation.batched={batched}")
        for batched in ("auto", "off")
    )
    for one, other in zip(last_rows(together.run()), last_rows(alone.run()), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)


def test_what_a_site_serves_is_its_whole_model() -> None:
    site = digits_of("ecl-isvr").sites["N2"]
    blueprint = Blueprint(job_task(parse_job(DIGITS)).new_model(seed=9))
    served = blueprint.unpack(pack_model(site.learner.module)).module
    sample = site.learner.draw().inputs
    assert torch.equal(served(sample), site.learner.module(sample))


def test_a_checkpoint_brings_own_parameters_back_and_is_not_for_other_patterns() -> None:
    experiment = experiment_of(QUADRATIC, "training.rounds=3")
    experiment.run()
    tensors, memo = experiment.sites["N1"].brain.state()
    again = experiment_of(QUADRATIC).sites["N1"]
    again.brain.load_state(tensors, memo)
    assert torch.equal(again.learner.primal, experiment.sites["N1"].learner.primal)
    whole = experiment_of(QUADRATIC, "training.local=[]").sites["N1"]
    with pytest.raises(CheckpointError, match=r"another model: .*training\.local"):
        whole.brain.load_state(tensors, memo)


def test_norms_can_stay_at_their_site_with_the_averages_that_always_do() -> None:
    experiment = experiment_of(
        DIGITS, "task={name: digits, model: 'personal:build_normed'}", 'training.local=["norm.*"]'
    )
    experiment.run()
    one, other = (experiment.sites[name].learner.module for name in ("N1", "N2"))
    apart = {name: (value - other.state_dict()[name]).abs().max().item() for name, value in one.state_dict().items()}
    assert apart["norm.weight"] > 0
    assert apart["norm.running_mean"] > 3 * apart["body.weight"]
    assert experiment.sites["N1"].learner.flat.kept == 16
