"""From a figure's definition to jobs. Needs no torch; must not know how jobs are run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from concord.errors import JobError
from concord.figures.definitions import Case, Figure, Panel
from concord.job import Job, parse_job

_NOTHING: tuple[str, ...] = ()


def panel_job(panel: Panel, size: str, overrides: Sequence[str] = (), case: Case | None = None) -> Job:
    """The job as it is run: the file, then what the size, `overrides` and the case change, in this order."""
    text = resources.files("concord.figures").joinpath("jobs", panel.job).read_text(encoding="utf-8")
    changes = (*panel.sizes[size], *overrides, *(case.overrides if case else _NOTHING))
    return parse_job(text, changes, source=panel.job)


def figure_jobs(figure: Figure, size: str, overrides: Sequence[str] = ()) -> list[tuple[Panel, Case, Job]]:
    """Every case of every panel, in order."""
    return [(panel, case, panel_job(panel, size, overrides, case)) for panel in figure.panels for case in panel.cases]


def data_override(path: Path) -> str:
    """The override that takes data from a file or folder; JobError if there is none."""
    if not path.exists():
        raise JobError(f"--data: {path} does not exist; give the file or folder that holds the data set")
    return f"task.options.path={json.dumps(str(path))}"
