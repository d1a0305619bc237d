"""Draws hospitals that learn together: a pair of bars for each, the new method against the conventional one, and how
well each finding is told. Takes plain values; must not know how they came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from concord.errors import EnvironmentProblem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANCE = 0.5
"""The AUC of a guess, from which bars begin."""

# Told apart by those who are colour-blind too (Okabe and Ito 2008), and dots by their forms.
_NEW, _CONVENTIONAL, _POOLED = "#0072b2", "#e69f00", "black"
_BAR = 0.36  # of the distance between two hospitals
_NAMED = 3  # findings that are named under a hospital


@dataclass(frozen=True, slots=True)
class Hospital:
    """One site: training images, its `findings` with the commonest first, and the AUC of its model by either method."""

    name: str
    images: int
    findings: Sequence[str]
    new: float
    conventional: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: training images that show it, the AUC averaged over sites, and that of pooled training."""

    name: str
    images: int
    new: float
    conventional: float
    pooled: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that the picture shows; `pooled` is the AUC of training on all data in one place."""

    hospitals: Sequence[Hospital]
    findings: Sequence[Finding]
    pooled: float
    new: str = "edge-consensus learning"
    conventional: str = "gossip averaging"
    title: str = ""


def draw_hospitals(paths: Sequence[Path], shown: Comparison) -> None:
    """The same picture in every file, whose name says the format; equal values give equal bytes.

    EnvironmentProblem without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentProblem("figures need matplotlib: pip install 'concord-edge[plots]'") from error
    figure = Figure(figsize=(12.5, 1.9 + 0.56 * max(6, len(shown.hospitals))), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_bars(left, shown)
    _draw_dots(right, shown)
    _add_legend(figure, right)
    if shown.title:
        figure.suptitle(shown.title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    with rc_context({"svg.hashsalt": "concord"}):
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_bars(axes: Axes, shown: Comparison) -> None:
    """A pair of bars per hospital, from chance to what it reached; a line where pooled training is."""
    for row, hospital in enumerate(shown.hospitals):
        _draw_bar(axes, row - _BAR / 2, hospital.new, _NEW)
        _draw_bar(axes, row + _BAR / 2, hospital.conventional, _CONVENTIONAL)
    axes.axvline(shown.pooled, color=_POOLED, linestyle=":", linewidth=1.5)
    axes.annotate(
        f"all data in one place {shown.pooled:.3f}",
        (shown.pooled, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )
    values = [value for one in shown.hospitals for value in (one.new, one.conventional)]
    least, most = min([CHANCE, *values]), max([CHANCE, shown.pooled, *values])
    axes.set_xlim(least - 0.03 * (most - least), most + 0.03 * (most - least))
    axes.set_yticks(range(len(shown.hospitals)), [_hospital_label(one) for one in shown.hospitals], fontsize=9)
    axes.set_xlabel("AUC of the hospital's model on all findings, from chance")
    _tidy(axes, len(shown.hospitals))


def _draw_bar(axes: Axes, at: float, value: float, colour: str) -> None:
    axes.barh(at, value - CHANCE, height=_BAR, left=CHANCE, color=colour)
    axes.annotate(f"{value:.3f}", (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=8)


def _hospital_label(one: Hospital) -> str:
    return f"{one.name}, {one.images} images\n{', '.join(_plain(name) for name in one.findings[:_NAMED])}"


def _draw_dots(axes: Axes, shown: Comparison) -> None:
    """A row per finding, that which pooled training tells best at the top."""
    findings = sorted(shown.findings, key=lambda one: -one.pooled)
    rows = range(len(findings))
    for row, one in zip(rows, findings, strict=True):
        values = (one.new, one.conventional, one.pooled)
        axes.plot((min(values), max(values)), (row, row), color="#c8ccd2", linewidth=1.2, zorder=1)
    _scatter(axes, [one.pooled for one in findings], ("D", "white", _POOLED), "all data in one place")
    _scatter(axes, [one.conventional for one in findings], ("s", _CONVENTIONAL, _CONVENTIONAL), shown.conventional)
    _scatter(axes, [one.new for one in findings], ("o", _NEW, _NEW), shown.new)
    axes.axvline(CHANCE, color="#8a8f98", linewidth=1)
    axes.set_yticks(rows, [f"{_plain(one.name)} ({one.images})" for one in findings], fontsize=9)
    axes.set_xlabel("AUC of each finding (training images), mean over hospitals", loc="right")
    _tidy(axes, len(findings))


def _scatter(axes: Axes, values: Sequence[float], look: tuple[str, str, str], label: str) -> None:
    """One dot per row; `look` is its form, its colour and that of its edge."""
    marker, face, edge = look
    axes.scatter(values, range(len(values)), s=42, zorder=3, marker=marker, facecolor=face, edgecolor=edge, label=label)


def _add_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper right", ncols=3, frameon=False)


def _tidy(axes: Axes, rows: int) -> None:
    axes.set_ylim(rows - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _plain(name: str) -> str:
    return name.replace("_", " ")
