"""What a figure is drawn from: its definition, the data's name, and a finished point for every case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from concord.figures.definitions import Case, Figure, Panel
from concord.job import Job
from concord.simulate.report import Point


@dataclass(frozen=True, slots=True)
class Finished:
    """A case, the job that was run for it, and what came of it."""

    case: Case
    job: Job
    point: Point


@dataclass(frozen=True, slots=True)
class Drawn:
    """All that a drawing may show; every panel with its cases in order.

    The metrics of each site at the end are `point.runs[...].run.metrics`, those of pooled training
    `point.runs[...].reference.metrics`.
    """

    figure: Figure
    size: str
    data_name: str
    panels: Sequence[tuple[Panel, Sequence[Finished]]]

    @property
    def title(self) -> str:
        """The figure's, with the name of the data."""
        return self.figure.title.format(data=self.data_name)
