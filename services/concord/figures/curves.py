"""Draws learning curves: a mean with a band for all sites, and a dotted line for training on all data in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concord.errors import EnvironmentProblem
from concord.figures.definitions import POOLED, Panel
from concord.figures.results import Drawn, Finished
from concord.simulate.report import Point, band, pooled_curve, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS = ("#1b6ac9", "#d9822b", "#2a8c4a", "#8a4fbf", "#c23b4b", "#8a8f98", "#11999e", "#7a5c2e")
POOLED_LABEL = "all data in one place"
# Beside the curves there is no room that is free for sure.
_BELOW: dict[str, Any] = {
    "loc": "upper left",
    "bbox_to_anchor": (0, -0.12),
    "ncols": 2,
    "frameon": False,
    "fontsize": 9,
    "title_fontsize": 9,
    "alignment": "left",
}


@dataclass(frozen=True, slots=True)
class _Line:
    """A curve to be drawn; without `least` and `greatest` it has no band."""

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    least: Sequence[float] = ()
    greatest: Sequence[float] = ()


def new_canvas(width: float = 8, height: float = 4.8) -> Canvas:
    """An empty canvas of so many inches; EnvironmentProblem without matplotlib."""
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise EnvironmentProblem("curves need matplotlib: pip install 'concord-edge[plots]'") from error
    return Canvas(figsize=(width, height), dpi=150, layout="constrained")


def save(canvas: Canvas, paths: Sequence[Path]) -> None:
    """The same picture in every file, whose name says the format; equal pictures give equal bytes."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "concord"}):
        for path in paths:
            canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw(paths: Sequence[Path], points: Sequence[Point], metric: str) -> None:
    """What a simulation measured: the metric over virtual time."""
    canvas = new_canvas()
    axes = canvas.add_subplot()
    for index, point in enumerate(points):
        shown = band(point)
        line = _Line(point.label or point.algorithm, shown.seconds, shown.mean, shown.least, shown.greatest)
        _plot(axes, line, COLOURS[index % len(COLOURS)])
    for point in _with_pooled(points):
        end, pooled = max(band(point).seconds), pooled_curve(point)
        _plot_pooled(axes, _Line(POOLED_LABEL, [end * share for share, _ in pooled], [value for _, value in pooled]))
    axes.set(xlabel="virtual seconds", ylabel=f"{metric}, mean over sites and least to greatest", xlim=(0, None))
    axes.legend(frameon=False)
    _tidy(axes)
    save(canvas, paths)


def draw_errors(paths: Sequence[Path], drawn: Drawn) -> None:
    """A figure of one panel or more: error rate on the test data, in %, against rounds of the average site."""
    canvas = new_canvas(8 if len(drawn.panels) == 1 else 6 * len(drawn.panels), 6)
    canvas.suptitle(drawn.title, x=0.01, ha="left", fontsize=12)
    row = canvas.subplots(1, len(drawn.panels), sharey=True, squeeze=False)[0]
    for axes, (panel, finished) in zip(row, drawn.panels, strict=True):
        for one in finished:
            _plot(axes, _error_line(one), one.case.colour)
        for point in _with_pooled([one.point for one in finished]):
            _plot_pooled(axes, _pooled_errors(point))
        _plot_published(axes, panel)
        axes.set(xlabel="rounds of the average site", xlim=(0, None))
        axes.set_title(panel.title, loc="left", fontsize=10)
        _tidy(axes)
        axes.legend(**_BELOW, title="mean over sites, with a band from least to greatest; in % at the end")
    row[0].set_ylim(_limits(drawn))
    row[0].set_ylabel("error rate on the test data, %")
    save(canvas, paths)


def _error_line(one: Finished) -> _Line:
    shown, end = band(one.point), summarise(one.point)
    label = f"{one.case.label}: {_percent(1 - end.mean):.1f}"
    return _Line(label, shown.rounds, _errors(shown.mean), _errors(shown.greatest), _errors(shown.least))


def _with_pooled(points: Sequence[Point]) -> Sequence[Point]:
    """The first point that has a curve of pooled training, if there is one: its steps are spread over the run."""
    return [point for point in points if pooled_curve(point)][:1]


def _pooled_errors(point: Point) -> _Line:
    pooled, rounds = pooled_curve(point), summarise(point).rounds
    values = _errors([value for _, value in pooled])
    return _Line(f"{POOLED_LABEL}: {values[-1]:.1f}", [rounds * share for share, _ in pooled], values)


def _limits(drawn: Drawn) -> tuple[float, float]:
    """From a little under the best to a little over the worst after the first tenth, when all have left the start."""
    values = [100 - accuracy for panel, _ in drawn.panels for accuracy in panel.published.values()]
    for line in (_error_line(one) for _, finished in drawn.panels for one in finished):
        late = [index for index, at in enumerate(line.x) if at >= line.x[-1] / 10]
        values += [line.least[index] for index in late] + [line.greatest[index] for index in late]
    for _, finished in drawn.panels:
        for point in _with_pooled([one.point for one in finished]):
            values.append(min(_pooled_errors(point).mean))
    return max(0.0, min(values) - 3), min(100.0, max(values) + 3)


def _errors(accuracies: Sequence[float]) -> list[float]:
    return [_percent(1 - value) for value in accuracies]


def _percent(share: float) -> float:
    return 100 * share


def _plot(axes: Axes, line: _Line, colour: str) -> None:
    axes.plot(line.x, line.mean, color=colour, linewidth=2, label=line.label)
    axes.fill_between(line.x, line.least, line.greatest, color=colour, alpha=0.15, linewidth=0)


def _plot_pooled(axes: Axes, line: _Line) -> None:
    axes.plot(line.x, line.mean, color="black", linestyle=":", label=line.label)


def _plot_published(axes: Axes, panel: Panel) -> None:
    """Where a paper's curves end, as triangles in the colours of ours."""
    colours = {case.label: case.colour for case in panel.cases} | {POOLED: "black"}
    label = f"published, after {panel.published_rounds:,} rounds"
    for name, accuracy in panel.published.items():
        at, error = axes.dataLim.x1, 100 - accuracy
        axes.plot([at], [error], "<", color=colours[name], markersize=8, fillstyle="none", clip_on=False, label=label)
        label = ""  # once


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
