"""What a job leaves open, filled in by what its model can bear."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from concord.apps.model_defaults import fit_to_model
from concord.apps.trainer import job_task
from concord.job import parse_job

JOB = "name: fit\ntask: digits\nsites: 4\nalgorithm: sm-ecl\n"


@pytest.mark.parametrize(
    ("overrides", "damping", "scale"),
    [
        ([], 0.1, 0.5),
        (["training.mean_damping=0.3"], 0.3, 0.5),
        (["training.mean_damping=1"], 1, None),
        (["algorithm.gamma_scale=0.7"], 0.1, 0.7),
        (["training.local=[head.*]"], None, None),
        (["algorithm.name=ecl-isvr"], None, None),
    ],
)
def test_sm_ecl_is_damped_and_reaches_further_unless_told_otherwise(
    overrides: list[str], damping: float | None, scale: float | None
) -> None:
    job = parse_job(JOB, overrides)
    fitted = fit_to_model(job, job_task(job))
    assert (fitted.training.mean_damping, fitted.algorithm.gamma_scale) == (damping, scale)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)),
        nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)),
        nn.Sequential(nn.LayerNorm(4)),
    ],
    ids=["running averages", "tokens", "no layer"],
)
def test_a_model_that_cannot_be_damped_keeps_the_shorter_reach(module: nn.Module) -> None:
    job = parse_job(JOB)
    fitted = fit_to_model(job, replace(job_task(job), build_model=lambda: module))
    assert (fitted.training.mean_damping, fitted.algorithm.gamma_scale) == (None, None)
