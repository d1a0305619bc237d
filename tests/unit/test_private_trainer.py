"""Privacy in the trainer's loop: what the status tells and leaves out, restarts, and the end of a budget."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from concord.apps.members import Members
from concord.apps.simulation import build_experiment
from concord.apps.trainer import build_trainer, job_task
from concord.errors import CheckpointError
from concord.job import JobFileError, parse_job
from concord.learning.accountant import Mechanism, epsilon
from concord.learning.ledger import BLOCK, FILE, Ledger
from concord.mailbox.memory import MemoryMailbox
from concord.serving.snapshots import MemoryShelf
from concord.settings import Settings
from concord.site.loop import Trainer
from concord.site.post import Post

JOB = """
name: digits
task: {name: digits, options: {model: logistic}}
sites: 4
algorithm: ecl
training: {rounds: 5, local_steps: 4, pace: 0, learning_rate: 0.25}
"""
PRIVATE = "privacy={noise_multiplier: 4.0, target_delta: 0.001}"


def trainer_of(folder: Path, *overrides: str) -> Trainer:
    job = parse_job(JOB, [PRIVATE, *overrides])
    settings = Settings(site="N1", state_dir=folder)
    post = Post("N1", MemoryMailbox(), MemoryShelf())
    return build_trainer(job, settings, job_task(job), post, Members(job, settings).now)


def train(folder: Path, *overrides: str) -> dict[str, Any]:
    """The status at the end."""
    trainer = trainer_of(folder, *overrides)
    trainer.train(threading.Event())
    found: dict[str, Any] = json.loads(trainer.status)
    return found


def test_the_status_tells_epsilon_and_nothing_of_single_samples(tmp_path: Path) -> None:
    status = train(tmp_path)
    privacy = status["privacy"]
    assert privacy["steps"] == status["progress"]["step"] == 20
    expected = epsilon({Mechanism(4.0, privacy["sample_rate"]): 20}, 0.001)
    assert privacy["epsilon"] == expected > 0
    assert privacy["complete"]
    assert (status["classes"], status["progress"]["loss"], status["progress"]["samples"]) == ({}, None, 20 * 32)
    usual = train(tmp_path / "usual", "privacy=null")
    assert usual["privacy"] is None
    assert usual["classes"]
    assert usual["progress"]["loss"] is not None


def test_a_restart_goes_on_with_the_count(tmp_path: Path) -> None:
    train(tmp_path)
    assert train(tmp_path, "training.rounds=8")["privacy"]["steps"] == 32


def test_steps_that_a_crash_undid_stay_spent(tmp_path: Path) -> None:
    train(tmp_path)
    crashed = trainer_of(tmp_path, "training.rounds=8", "checkpoint.every=1000")
    crashed._boot()
    for _ in range(6):
        crashed._advance()  # and never again
    status = train(tmp_path, "training.rounds=8")
    assert status["progress"]["step"] == 32
    assert 20 + 6 + 12 <= status["privacy"]["steps"] <= 20 + BLOCK + 12


def test_a_budget_that_is_spent_ends_the_training_and_stays_spent(tmp_path: Path) -> None:
    target = "privacy.target_epsilon=2.0"
    status = train(tmp_path, "training.rounds=1000", target)
    privacy, progress = status["privacy"], status["progress"]
    assert progress["phase"] == "finished"
    assert 0 < progress["round"] < 1000
    assert progress["step"] == 4 * progress["round"] == privacy["steps"]  # no round is broken off
    assert 1.8 < privacy["epsilon"] <= 2.0
    again = train(tmp_path, "training.rounds=1000", target)
    assert again["privacy"]["steps"] == privacy["steps"]


def test_a_life_that_is_remembered_elsewhere_makes_the_count_incomplete(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer._post.floor = 7
    trainer.train(threading.Event())
    assert json.loads(trainer.status)["privacy"]["complete"] is False
    assert not Ledger(tmp_path).complete


def test_a_lost_count_beside_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    train(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(CheckpointError, match="nobody knows what it cost"):
        train(tmp_path)


def test_simulated_sites_stop_at_their_budget_and_repeat_themselves() -> None:
    job = parse_job(
        JOB,
        [
            PRIVATE,
            "privacy.target_epsilon=0.7",
            "training.rounds=1000",
            "simulation.batched=auto",
            "simulation.sites={N1: {crashes: [{at: 0.05, down: 0.1}]}}",
        ],
    )
    runs = []
    for _ in range(2):
        experiment = build_experiment(job)
        rows = experiment.run().rows
        runs.append(rows)
        for site in experiment.sites.values():
            spent = site.learner.privacy()
            assert spent is not None
            assert spent.epsilon is not None
            assert 0.5 < spent.epsilon <= 0.7
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.clip=1.0", "training.clip: has no meaning beside privacy"),
        ("privacy.noise_multiplier=0", "privacy.noise_multiplier: should be greater than 0"),
        ("privacy.target_delta=1", "privacy.target_delta: should be"),
        ("privacy.epsilon=3", "privacy.epsilon: unknown"),
    ],
)
def test_a_mistake_is_told(override: str, message: str) -> None:
    with pytest.raises(JobFileError) as caught:
        parse_job(JOB, [PRIVATE, override])
    assert any(message in f"{problem.key}: {problem.message}" for problem in caught.value.problems), caught.value
