"""A site that died goes on to the bit as if it had not: with every algorithm, killed after any step."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import resumed
from concord.job.names import ALGORITHMS
from concord.wire.messages import Update
from resumed import STEP, Resumable, digest

LENGTH = 24
"""Steps of a run."""
SIZE = int(os.environ.get("CONCORD_PROOF", "1"))


@cache
def news(algorithm: str) -> tuple[tuple[Update, ...], ...]:
    """What comes in before each step: the updates of a neighbour that hears nobody."""
    other = Resumable("N2", algorithm)
    return tuple(tuple(other.step()) for _ in range(LENGTH))


def run(site: Resumable, first: int, last: int) -> list[Update]:
    """Steps `first` to before `last`, each with its news; returns what the site sent."""
    return [update for number in range(first, last) for update in site.step(news(site.brain.algorithm.name)[number])]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(killed=st.integers(1, LENGTH - 1), saved_before=st.integers(0, 2 * STEP.steps))
@settings(max_examples=6 * SIZE, deadline=None)
def test_a_site_killed_after_any_step_goes_on_to_the_bit(algorithm: str, killed: int, saved_before: int) -> None:
    saved = max(0, killed - saved_before)
    site = Resumable("N1", algorithm)
    run(site, 0, saved)
    memory = site.memory()
    sent = run(site, saved, LENGTH)
    torch.manual_seed(7)  # whatever the process that comes after drew before it resumes
    again = Resumable("N1", algorithm)
    again.remember(memory)
    run(again, saved, killed)  # lives on, and dies without having saved
    again = Resumable("N1", algorithm)
    again.remember(memory)
    resent = run(again, saved, LENGTH)
    before, after = site.everything(), again.everything()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert len(sent) == len(resent)
    for one, other in zip(sent, resent, strict=True):
        assert other.header.stamp > one.header.stamp
        assert all(torch.equal(one.parts[name], part) for name, part in other.parts.items())


@pytest.mark.parametrize("algorithm", ["ecl-isvr", "d2"])
def test_a_process_killed_with_signal_9_goes_on_to_the_bit(algorithm: str, tmp_path: Path) -> None:
    rounds = 100
    command = [sys.executable, resumed.__file__, str(tmp_path / "killed"), algorithm, str(rounds)]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while len(lines) < 5:
            lines.append(process.stdout.readline())
        process.kill()
        lines += process.stdout.readlines()
    assert process.returncode == -9
    assert STEP.steps * 5 <= int(lines[-1]) < STEP.steps * rounds, "it died in the middle"
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert int(again[0]) > int(lines[-1]), "it went on from its last checkpoint"
    assert again[-1] == digest(resumed.train(tmp_path / "steady", algorithm, rounds))
