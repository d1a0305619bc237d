"""Whole small runs of virtual sites: what is learned, what faults do, and that nothing depends on chance."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from concord.apps.simulation import build_experiment, reference, with_seed
from concord.apps.trainer import job_task, split_options
from concord.errors import JobError
from concord.job import Job, parse_job
from concord.learning.steps import GradientOptions, Learner
from concord.simulate.experiment import Row, Run
from concord.simulate.report import last_rows

JOB = """\
name: small
task: {name: digits, options: {model: logistic}}
sites: 4
topology: ring
algorithm: ecl-isvr
training: {rounds: 10, pace: 0, local_steps: 4, batch_size: 8, learning_rate: 0.1, momentum: 0.5}
checkpoint: {every: 0.1}
simulation: {evaluate_every: 0.1}
split: {kind: classes-per-site, classes: [2, 3]}
"""
BAD_NETWORK = "simulation.network={latency: 0.02, jitter: exponential, bandwidth: 1e6, loss: 0.2, duplication: 0.1}"
EVERYTHING = (
    BAD_NETWORK,
    "simulation.edges.N1-N2={latency: 0.1}",
    "simulation.partitions=[{sites: [N1], start: 0.1, end: 0.2}, {edges: [N2-N3], start: 0.2, end: 0.3}]",
    "simulation.sites.N1={speed: 0.5, joins: 0.1}",
    "simulation.sites.N2={pauses: [{start: 0.1, end: 0.15}]}",
    "simulation.sites.N3={crashes: [{at: 0.21, down: 0.1}]}",
    "simulation.sites.N4={leaves: 0.2, joins: 0.25}",
)


def job_of(*overrides: str) -> Job:
    return parse_job(JOB, overrides)


def run(*overrides: str) -> Run:
    return build_experiment(job_of(*overrides)).run()


def ends(one: Run) -> dict[str, Row]:
    return {row.site: row for row in last_rows(one)}


def times(one: Run) -> list[float]:
    return sorted({row.seconds for row in one.rows})


def test_equal_jobs_give_equal_rows_whatever_goes_wrong() -> None:
    assert run(*EVERYTHING) == run(*EVERYTHING)
    assert run(*EVERYTHING) != run(*EVERYTHING, "training.seed=1")


def test_a_site_learns_what_it_would_learn_alone_to_the_last_bit() -> None:
    """The reference: mini-batch descent by hand, with the seeds that a deployed site has."""
    job = job_of("algorithm=local", "simulation.sites.N2.speed=0.3")
    experiment = build_experiment(job)
    experiment.run()
    task = job_task(job)
    data = task.site_data("N2", job.site_names, split_options(job))
    options = GradientOptions(batch_size=8, momentum=0.5)
    learner = Learner(task.new_model(0), task, data.train, options, seed=2)
    for _ in range(40):
        learner.compute_gradient()
        learner.primal.add_(learner.gradient, alpha=-0.1)
    assert torch.equal(experiment.sites["N2"].learner.primal, learner.primal)


def test_sites_are_measured_at_fixed_times_and_at_the_end() -> None:
    assert times(run()) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert times(run("simulation.evaluate_every=0.3")) == [0.0, 0.3, 0.4]
    assert times(run("simulation.evaluate_every=9")) == [0.0, 0.4]


def test_consensus_reaches_what_no_site_could_learn_alone() -> None:
    settings = ("training.rounds=60", "simulation.evaluate_every=9", BAD_NETWORK)
    alone = [row.metric for row in ends(run(*settings, "algorithm=local")).values()]
    together = [row.metric for row in ends(run(*settings)).values()]
    assert max(alone) < 0.4
    assert min(together) > 0.75


def test_a_straggler_does_fewer_steps_in_the_same_time() -> None:
    found = ends(run("simulation.duration=1", "simulation.sites.N3.speed=0.25"))
    assert {name: row.step for name, row in found.items()} == {"N1": 100, "N2": 100, "N3": 25, "N4": 100}


def test_without_a_duration_all_sites_do_all_rounds() -> None:
    one = run("simulation.sites.N3.speed=0.25")
    assert {row.round for row in ends(one).values()} == {10}
    assert times(one)[-1] == 1.6


def test_a_duration_replaces_the_ends_that_training_has() -> None:
    one = run("simulation.duration=0.75")
    assert times(one)[-1] == 0.75
    assert ends(one)["N1"].round == 18


def test_the_pace_of_a_round_holds_in_virtual_time() -> None:
    assert times(run("training.pace=0.1"))[-1] == 0.94


def test_the_bytes_of_every_message_are_counted() -> None:
    one = run()
    size = 4 * (64 * 10 + 10)
    assert ends(one)["N1"].bytes_sent == 10 * 2 * size
    assert one.traffic.bytes == 10 * 8 * size


def test_a_crash_costs_what_was_done_since_the_last_checkpoint() -> None:
    experiment = build_experiment(
        job_of("training.rounds=20", "simulation.sites.N2={crashes: [{at: 0.255, down: 0.1}]}")
    )
    one = experiment.run()
    steps = {row.seconds: row.step for row in one.rows if row.site == "N2"}
    by_time = [steps[at] for at in sorted(steps)]
    assert by_time[:3] == [0, 10, 20]
    assert by_time[3] == 25  # dead
    # Rounds end every 0.04 s, so that checkpoints are of 0.12 s and 0.24 s: step 24 is gone on from at 0.355 s.
    assert by_time[4] == 28
    assert ends(one)["N2"].round == 20
    assert experiment.sites["N2"].brain.counters.incarnation == 2
    heard = experiment.sites["N1"].brain.seen()["N2"]
    assert heard is not None
    assert heard.incarnation == 2


def test_a_crash_before_any_checkpoint_begins_anew() -> None:
    job = job_of("checkpoint.every=100", "simulation.sites.N2={crashes: [{at: 0.205, down: 0.1}]}")
    experiment = build_experiment(job)
    one = experiment.run()
    assert times(one)[-1] == 0.705
    assert experiment.sites["N2"].brain.counters.step == 40


def test_a_site_that_joins_late_is_heard_by_its_neighbours_in_a_new_epoch() -> None:
    experiment = build_experiment(job_of("simulation.sites.N2.joins=0.2"))
    one = experiment.run()
    assert next(row.seconds for row in one.rows if row.site == "N2") == 0.2
    for name, neighbour in (("N1", "N2"), ("N2", "N1"), ("N3", "N2")):
        edges = experiment.sites[name].brain.table().edges
        assert edges[neighbour].epoch == 2
        assert experiment.sites[name].brain.seen()[neighbour] is not None
    assert experiment.sites["N4"].brain.table().edges["N1"].epoch == 1


def test_a_site_that_leaves_is_forgotten_at_both_ends() -> None:
    experiment = build_experiment(job_of("simulation.sites.N2.leaves=0.205"))
    one = experiment.run()
    assert "N2" not in ends(one)
    assert experiment.sites["N2"].brain.counters.step == 20
    assert not experiment.sites["N2"].brain.table().edges
    assert set(experiment.sites["N1"].brain.table().edges) == {"N4"}


def test_a_site_that_comes_back_goes_on_as_it_left() -> None:
    experiment = build_experiment(job_of("simulation.sites.N2={leaves: 0.205, joins: 0.6}"))
    one = experiment.run()
    assert ends(one)["N2"].round == 10
    assert times(one)[-1] == 0.8
    assert experiment.sites["N1"].brain.table().edges["N2"].epoch == 3


def test_a_partition_keeps_news_away_and_then_lets_it_through() -> None:
    cut = "simulation.partitions=[{sites: [N1], start: 0, end: %s}]"
    open_again, never = build_experiment(job_of(cut % 0.3)), build_experiment(job_of(cut % 99))
    open_again.run()
    one = never.run()
    assert set(never.sites["N1"].brain.seen().values()) == {None}
    assert None not in open_again.sites["N1"].brain.seen().values()
    assert None not in [stamp for name, stamp in never.sites["N3"].brain.seen().items()]
    assert one.traffic.sent < one.traffic.posted


def test_a_site_whose_gradient_is_never_finite_gives_up_and_the_others_go_on() -> None:
    experiment = build_experiment(job_of("training.max_bad_steps=3"))
    experiment.sites["N2"].learner.primal.fill_(float("nan"))
    one = experiment.run()
    assert one.gave_up == ("N2",)
    assert ends(one)["N1"].round == 10


def test_a_job_without_an_end_is_told_what_to_say() -> None:
    with pytest.raises(JobError, match=r"simulation\.duration"):
        build_experiment(job_of("training.rounds=null"))


def test_a_seed_changes_the_model_the_batches_and_the_split() -> None:
    job = with_seed(job_of(), 3)
    assert (job.training.seed, job.split.seed) == (3, 3)


def test_progress_goes_on_and_ends_at_one() -> None:
    told: list[float] = []
    build_experiment(job_of()).run(told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert 0 < told[0] < 1


def test_the_reference_spreads_its_steps_over_the_run() -> None:
    curve: Sequence[tuple[float, float]] = reference(job_of(), 80).curve
    assert (curve[0][0], curve[-1][0]) == (0.0, 1.0)
    assert curve[-1][1] > curve[0][1]
