"""The few commands that need a task's data get it here, because it takes torch, which takes a second to load.

Imported inside commands only.
"""

from __future__ import annotations

from torch import Tensor

from concord.apps.trainer import job_task, split_options
from concord.consensus.vectors import matching, trainable
from concord.errors import JobError, TaskError
from concord.job import Job
from concord.learning.task import describe


def class_counts(job: Job) -> dict[str, dict[str, int]]:
    """How many training samples of each class each site holds; TaskError or SplitError if unknown."""
    task = job_task(job)
    rows = describe(task, job.site_names, split_options(job))
    names = task.classes or tuple(str(index) for index in range(max(len(row.counts) for row in rows)))
    return {row.site: {name: count for name, count in zip(names, row.counts, strict=True) if count} for row in rows}


def local_parameters(job: Job) -> list[str] | None:
    """The names of the parameters that stay at their sites; TaskError for a wrong pattern.

    None if the model cannot be built on this machine.
    """
    try:
        model = job_task(job).new_model(job.training.seed)
    except TaskError:
        return None
    return matching(trainable(model, job.training.local), job.training.local)


def held_out_sample(job: Job, index: int) -> tuple[Tensor, str]:
    """One input of the test set, and what is right for it as text; JobError if there is no such sample."""
    task = job_task(job)
    test = task.pool(job.site_names).test
    if not 0 <= index < len(test):
        raise JobError(f"sample {index} is not there; the test set has 0 to {len(test) - 1}")
    target = test.targets[index]
    if target.dim() or target.is_floating_point():
        return test.inputs[index], str(target.tolist())
    number = int(target)
    return test.inputs[index], task.classes[number] if number < len(task.classes) else str(number)
