"""Settings that a job leaves open and that depend on its model; every site comes to the same."""

from __future__ import annotations

from torch import nn

from concord.job import Job
from concord.learning.damping import obstacle
from concord.learning.task import Task

MEAN_DAMPING = 0.1
"""What SM-ECL leaves of gradients along mean inputs."""
DAMPED_GAMMA_SCALE = 0.5
"""The reach that SM-ECL bears with it in all runs of docs/algorithms.md but the longest of CIFAR-10."""


def fit_to_model(job: Job, task: Task) -> Job:
    """The job with `training.mean_damping` and `algorithm.gamma_scale` as SM-ECL has them, where they are not given.

    Other algorithms are not damped unless asked to. Where a model cannot be, or takes tokens, of which there is no
    noise, SM-ECL keeps its shorter reach.
    """
    if job.algorithm.name != "sm-ecl":
        return job
    share, scale = job.training.mean_damping, job.algorithm.gamma_scale
    if share is None and not job.training.local:
        module = task.new_model(job.training.seed)
        share = None if obstacle(module) or _takes_tokens(module) else MEAN_DAMPING
    if scale is None and share not in (None, 1):
        scale = DAMPED_GAMMA_SCALE
    return job.model_copy(
        update={
            "training": job.training.model_copy(update={"mean_damping": share}),
            "algorithm": job.algorithm.model_copy(update={"gamma_scale": scale}),
        }
    )


def _takes_tokens(module: nn.Module) -> bool:
    return any(isinstance(layer, nn.Embedding | nn.EmbeddingBag) for layer in module.modules())
