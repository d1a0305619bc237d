"""The few commands that need a task's data get it here, because it takes torch, which takes a second to load.

Imported inside commands only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from concord.apps.trainer import job_task, split_options
from concord.consensus.vectors import matching, trainable
from concord.errors import JobError, TaskError
from concord.job import Job
from concord.learning.partition import ClassCounts
from concord.learning.task import describe
from concord.learning.units import is_multi_label

UNLABELLED = "(none)"
"""What stands for samples without any label among class names."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A site's training samples: how many, and how many of each class; a sample of several labels counts for each."""

    samples: int
    classes: Mapping[str, int]


def class_counts(job: Job) -> dict[str, Holding]:
    """What each site holds; TaskError or SplitError if unknown."""
    task = job_task(job)
    rows = describe(task, job.site_names, split_options(job))
    names = task.classes or tuple(str(index) for index in range(max(len(row.counts) for row in rows)))
    return {row.site: Holding(row.total, _by_name(row, names)) for row in rows}


def _by_name(row: ClassCounts, names: Sequence[str]) -> dict[str, int]:
    counts = {**dict(zip(names, row.counts, strict=True)), UNLABELLED: row.unlabelled}
    return {name: count for name, count in counts.items() if count}


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
    if is_multi_label(target.unsqueeze(0)) and len(target) == len(task.classes):
        return test.inputs[index], ", ".join(task.classes[label] for label in target.nonzero()[:, 0]) or UNLABELLED
    if target.dim() or target.is_floating_point():
        return test.inputs[index], str(target.tolist())
    number = int(target)
    return test.inputs[index], task.classes[number] if number < len(task.classes) else str(number)
