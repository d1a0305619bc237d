"""Short runs whose every bit is on file, so that a change of an algorithm cannot pass for a refactoring.

After a change that is meant to alter the numbers, write the file anew from the repository's root with
`PYTHONPATH=services:tests python tests/golden/test_golden_trajectories.py` and say why in the commit.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from concord.consensus.algorithm import LocalStep
from concord.consensus.graph import build_topology
from concord.consensus.registry import AlgorithmOptions
from fleet import Fleet, Gradient, Link, Pace

FILE = Path(__file__).with_name("golden_trajectories.json")
SITES = ("east", "north", "south", "west")
DIM = 5
MARKS = (10, 20, 60)
"""Ticks at which the models are written down."""
RUNS = {
    "ecl-pdmm": AlgorithmOptions("ecl", penalty=0.7, averaging=1.0),
    "ecl-admm": AlgorithmOptions("ecl", penalty=0.7, averaging=0.5),
    "ecl-isvr": AlgorithmOptions("ecl-isvr", averaging=1.0),
    "c-ecl": AlgorithmOptions("c-ecl", keep=0.4),
    "c-ecl-top-int8": AlgorithmOptions("c-ecl", compression="top-k", keep=0.4, number_format="int8"),
    "sm-ecl": AlgorithmOptions("sm-ecl"),
    "sm-ecl-pdmm": AlgorithmOptions("sm-ecl", averaging=1.0),
    "gossip": AlgorithmOptions("gossip"),
    "dpsgd": AlgorithmOptions("dpsgd"),
    "dpsgd-every-step": AlgorithmOptions("dpsgd-every-step"),
    "gradient-tracking": AlgorithmOptions("gradient-tracking"),
    "local": AlgorithmOptions("local"),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
FUSED = torch.backends.cpu.get_cpu_capability() != "DEFAULT"
"""Whether torch multiplies and adds with one rounding, as on x86 with AVX2; if not, the last bits differ."""
CASES = [(run, dtype) for run in RUNS for dtype in DTYPES]

Trajectory = dict[str, list[list[str]]]
"""By tick, for each site in order its model as hexadecimal floats."""


def trajectory(run: str, dtype: str) -> Trajectory:
    """A star of four sites with unequal speeds and a bad network; element-wise arithmetic only, no BLAS."""
    numbers = random.Random(7)
    gradients = {site: _gradient(numbers, DTYPES[dtype]) for site in SITES}
    fleet = Fleet(
        build_topology("star", SITES),
        gradients,
        torch.linspace(-1, 1, DIM, dtype=DTYPES[dtype]),
        RUNS[run],
        LocalStep(rate=0.1, steps=4),
        Pace(speeds={"north": 0.6, "west": 0.8}),
        Link(loss=0.2, duplication=0.2, delay=4),
        seed=11,
    )
    marks: Trajectory = {}
    for before, mark in zip((0, *MARKS), MARKS, strict=False):
        fleet.run(mark - before)
        marks[str(mark)] = [[value.hex() for value in row] for row in fleet.models().tolist()]
    return marks


def _gradient(numbers: random.Random, dtype: torch.dtype) -> Gradient:
    widths = torch.tensor([numbers.uniform(1, 3) for _ in range(DIM)], dtype=dtype)
    centre = torch.tensor([numbers.uniform(-1, 1) for _ in range(DIM)], dtype=dtype)

    def gradient(primal: Tensor) -> Tensor:
        return (primal - centre).mul_(widths)

    return gradient


@pytest.mark.parametrize(("run", "dtype"), CASES)
def test_not_one_bit_has_changed(run: str, dtype: str) -> None:
    found = trajectory(run, dtype)
    golden = json.loads(FILE.read_text())[f"{run}/{dtype}"]
    if FUSED:
        assert found == golden
    else:
        torch.testing.assert_close(_numbers(found), _numbers(golden), rtol=1e-4, atol=1e-5)


def _numbers(marks: Trajectory) -> Tensor:
    return torch.tensor([[[float.fromhex(value) for value in row] for row in rows] for rows in marks.values()])


def test_the_file_holds_these_runs_and_no_others() -> None:
    assert sorted(json.loads(FILE.read_text())) == sorted(f"{run}/{dtype}" for run, dtype in CASES)


if __name__ == "__main__":
    everything = {f"{run}/{dtype}": trajectory(run, dtype) for run, dtype in CASES}
    FILE.write_text(json.dumps(everything, indent=1) + "\n")
