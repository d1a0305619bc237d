"""Draws what a simulation measured: the metric over virtual time, a band for all sites, a line for pooled training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from concord.errors import EnvironmentProblem
from concord.simulate.report import Point, band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#1b6ac9", "#d9822b", "#2a8c4a", "#8a4fbf", "#c23b4b", "#8a8f98", "#11999e", "#7a5c2e")


def draw(paths: Sequence[Path], points: Sequence[Point], metric: str) -> None:
    """The same picture in every file, whose name says the format; equal results give equal bytes."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentProblem("curves need matplotlib: pip install 'concord-edge[plots]'") from error
    with rc_context({"svg.hashsalt": "concord"}):
        figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for index, point in enumerate(points):
            _draw_point(axes, point, _COLOURS[index % len(_COLOURS)])
        _draw_reference(axes, points)
        axes.set(xlabel="virtual seconds", ylabel=f"{metric}, mean over sites and least to greatest", xlim=(0, None))
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_point(axes: Axes, point: Point, colour: str) -> None:
    shown = band(point)
    axes.plot(shown.seconds, shown.mean, color=colour, linewidth=2, label=point.label or point.algorithm)
    axes.fill_between(shown.seconds, shown.least, shown.greatest, color=colour, alpha=0.15, linewidth=0)


def _draw_reference(axes: Axes, points: Sequence[Point]) -> None:
    """Of the first point that has one: its steps are spread over the time that the sites took for as many."""
    for point in points:
        curves = [one.reference.curve for one in point.runs if one.reference is not None]
        if curves and len({len(curve) for curve in curves}) == 1:
            end = max(row.seconds for one in point.runs for row in one.run.rows)
            values = [fmean(value for _, value in at_once) for at_once in zip(*curves, strict=True)]
            times = [end * share for share, _ in curves[0]]
            axes.plot(times, values, color="black", linestyle=":", label="all data in one place")
            return
