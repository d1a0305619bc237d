"""What a person gets for a mistake: one clear message, a non-zero exit, and nothing half-written."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from concord.errors import EnvironmentProblem
from concord.mailbox.server import EmbeddedServer

JOB = """\
name: mistakes
task: digits
sites: 4
topology: ring
training: {rounds: 20, pace: 0.02}
"""
TASKS = """\
import torch
from torch import nn


def empty():
    return nn.Flatten()


def net():
    return nn.Linear(4, 2)


def whole(site, sites):
    return of(20)


def load(site, sites):
    return of(0 if site == "N2" else 20)


def of(samples):
    inputs = torch.randn(samples, 4)
    return (inputs, (inputs[:, 0] > 0).long()), (torch.ones(3, 4), torch.ones(3, dtype=torch.int64))
"""
Command = Callable[..., subprocess.Popen[str]]


@pytest.mark.parametrize(
    ("override", "code", "name", "message"),
    [
        ("task={model: 'own:empty', data: 'own:whole'}", 2, "CE-104", "no trainable parameters"),
        ("task={model: 'own:net', data: 'own:load'}", 2, "CE-104", "site 'N2' has no data to train on"),
        ("task={model: 'own:missing', data: 'own:load'}", 2, "CE-104", "missing"),
        ("algorithm=ecl-ivsr", 2, "CE-101", "did you mean 'ecl-isvr'?"),
        ("topology={kind: edges, edges: [[N1, N2], [N3, N4]]}", 2, "CE-101", "it falls apart into N1, N2 | N3, N4"),
        ("training.learning_rate=1e30", 2, "CE-104", "smaller learning rate"),
        ("training.local_step=3", 2, "CE-101", "local_steps"),
    ],
)
def test_a_wrong_job_ends_up_with_its_reason(
    override: str, code: int, name: str, message: str, command: Command, base_port: int, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "own.py").write_text(TASKS)
    process = command("up", "job.yaml", "--until-finished", "--base-port", str(base_port), "--set", override)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    said = errors.strip().splitlines()
    assert len(said) == 1, said
    assert message in said[0]
    assert f"explain {name};" in said[0]
    assert list(temporary.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} <= {"job.yaml", "own.py", "__pycache__"}


def test_a_disk_without_room_for_checkpoints_is_said_and_nothing_half_written(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    state = tmp_path / "state"
    arguments = ["trainer", "--job", "job.yaml", "--site", "N1", "--insecure", "--state-dir", str(state)]
    with EmbeddedServer(temporary) as redis:
        done = subprocess.run(
            [sys.executable, "-m", "concord", *arguments, "--redis-url", redis.url],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1)),  # no file may grow
        )
    assert done.returncode == 3
    assert "was not written" in done.stderr
    assert "--state-dir" in done.stderr
    assert list(state.iterdir()) == []


def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="choose a directory with a shorter path"):
        EmbeddedServer(tmp_path / ("x" * 120))
