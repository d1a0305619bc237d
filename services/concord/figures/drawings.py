"""The functions that draw figures, by the names that definitions use. Each imports matplotlib when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from concord.apps.trainer import job_task, split_options
from concord.figures.curves import draw_errors
from concord.figures.hospital_results import compare
from concord.figures.hospitals import draw_hospitals
from concord.figures.results import Drawn
from concord.learning.task import describe

Drawing = Callable[[Sequence[Path], Drawn], None]
"""Draws the same picture into every file; the names say the format."""


def draw_pairs(paths: Sequence[Path], drawn: Drawn) -> None:
    """Hospitals with a pair of bars each: the first case of the first panel against its second."""
    _, (new, conventional, *_) = drawn.panels[0]
    task = job_task(new.job)
    held = describe(task, new.job.site_names, split_options(new.job))
    shown = compare(new.point, conventional.point, held, task.classes)
    draw_hospitals(paths, replace(shown, title=drawn.title, new=new.case.label, conventional=conventional.case.label))


DRAWINGS: Mapping[str, Drawing] = {"curves": draw_errors, "hospitals": draw_pairs}
