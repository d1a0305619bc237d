"""The record of a figure as JSON: what exactly was run, on what data, how long it took, and every number drawn.

It names no place on the machine: a file is known by its name and its SHA-256. Must not draw or print.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from concord import __version__
from concord.apps.processors import usable_processors
from concord.errors import TaskError
from concord.figures.definitions import Panel
from concord.figures.results import Drawn, Finished
from concord.job import Job
from concord.learning.task import Task
from concord.simulate.report import SeedRun, band, describe

PATH_OPTION = "path"
"""The option of a task that says where its data is."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """How the runs were done, besides what was run; `seconds` is all of it by the clock on the wall."""

    seeds: int
    workers: int
    threads: int
    device: str
    overrides: Sequence[str]
    seconds: float


def describe_data(task: Task, sites: Sequence[str], name: str) -> dict[str, object]:
    """What the task learns from, and by what it is measured; TaskError if the data cannot be had."""
    pool = task.pool(sites)
    return {
        "name": name,
        "task": task.name,
        "metric": task.headline,
        "files": [_file(path) for path in task.files()],
        "training_samples": len(pool.train),
        "test_samples": len(pool.test),
    }


def record(drawn: Drawn, data: Mapping[str, object], how: Circumstances) -> dict[str, object]:
    """All of it, for JSON; `data` is from `describe_data`. Equal runs differ only in `timing`."""
    return {
        "figure": drawn.figure.name,
        "title": drawn.title,
        "size": drawn.size,
        "data": data,
        "seeds": how.seeds,
        "set": [change for change in how.overrides if not change.startswith(f"task.options.{PATH_OPTION}=")],
        "versions": {"concord": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "panels": [_panel(panel, finished, drawn.size) for panel, finished in drawn.panels],
        "timing": _timing(drawn, how),
    }


def _panel(panel: Panel, finished: Sequence[Finished], size: str) -> dict[str, object]:
    return {
        "name": panel.name,
        "title": panel.title,
        "published": {"rounds": panel.published_rounds, "percent": dict(panel.published)} if panel.published else None,
        "size_overrides": list(panel.sizes[size]),
        "cases": [_case(one) for one in finished],
    }


def _case(one: Finished) -> dict[str, object]:
    described = describe(one.point)
    del described["settings"]
    return {
        "label": one.case.label,
        "overrides": list(one.case.overrides),
        "job": _without_places(one.job),
        **described,
        "curve": asdict(band(one.point)),
    }


def _without_places(job: Job) -> Mapping[str, object]:
    """The job as JSON, with the name only of the file or folder that the data lies in."""
    where = job.task.options.get(PATH_OPTION)
    if isinstance(where, str):
        task = job.task.model_copy(update={"options": {**job.task.options, PATH_OPTION: Path(where).name}})
        job = job.model_copy(update={"task": task})
    return job.model_dump(mode="json")


def _timing(drawn: Drawn, how: Circumstances) -> dict[str, object]:
    return {
        "processors": usable_processors(),
        "machine": platform.machine(),
        "device": how.device,
        "workers": how.workers,
        "threads_of_a_worker": how.threads,
        "seconds": round(how.seconds, 1),
        "cases": [
            {"panel": panel.name, "label": one.case.label, "seeds": [_took(run) for run in one.point.runs]}
            for panel, finished in drawn.panels
            for one in finished
        ],
    }


def _took(run: SeedRun) -> Mapping[str, float] | None:
    return {name: round(value, 1) for name, value in asdict(run.took).items()} if run.took else None


def _file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}") from error
