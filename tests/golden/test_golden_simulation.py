"""A short simulated run whose course is on file: times, rounds, steps and bytes exactly, losses to a tolerance.

After a change that is meant to alter it, write the file anew from the repository's root with
`PYTHONPATH=services:tests python tests/golden/test_golden_simulation.py` and say why in the commit.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from concord.apps.simulation import build_experiment
from concord.job import parse_job

FILE = Path(__file__).with_name("golden_simulation.json")
JOB = """\
name: golden
task: {name: digits, options: {model: logistic}}
sites: 4
topology: star
algorithm: sm-ecl
training: {rounds: 12, pace: 0.05, local_steps: 4, batch_size: 8, learning_rate: 0.1}
checkpoint: {every: 0.1}
simulation:
  evaluate_every: 0.2
  batched: "off"
  network: {latency: 0.02, jitter: exponential, bandwidth: 1e6, loss: 0.2, duplication: 0.1}
  edges: {N1-N2: {latency: 0.1, jitter: uniform}}
  partitions: [{sites: [N2], start: 0.1, end: 0.2}]
  sites:
    N2: {speed: 0.5}
    N3: {crashes: [{at: 0.21, down: 0.1}], pauses: [{start: 0.1, end: 0.15}]}
    N4: {joins: 0.1, leaves: 0.5}
"""
MEASURED = ("loss", "metric")


def course() -> list[dict[str, object]]:
    return [asdict(row) for row in build_experiment(parse_job(JOB)).run().rows]


def test_the_course_of_the_run_is_the_one_on_file() -> None:
    found, golden = course(), json.loads(FILE.read_text())
    for rows in (found, golden):
        assert rows
    assert _counted(found) == _counted(golden)
    for name in MEASURED:
        expected = pytest.approx([row[name] for row in golden], rel=1e-3, abs=5e-3)
        assert [row[name] for row in found] == expected


def _counted(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


if __name__ == "__main__":
    FILE.write_text(json.dumps(course(), indent=1) + "\n")
