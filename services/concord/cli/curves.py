"""Draws what a demo saw: accuracy against rounds for each way of learning, and the pooled reference line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from concord.cli.watch import Sighting
from concord.errors import EnvironmentProblem

_STYLES = {
    "ecl": ("#1b6ac9", "edge-consensus learning"),
    "gossip": ("#d9822b", "gossip averaging"),
    "local": ("#8a8f98", "each site alone"),
}


def draw(path: Path, histories: Mapping[str, Sequence[Sighting]], pooled: Sequence[tuple[int, float]]) -> None:
    """A PNG with a thin line per site, a thick one for their mean, and the pooled curve; % against rounds."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentProblem("curves need matplotlib: pip install 'concord-edge[plots]'") from error
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, history in histories.items():
        colour, label = _STYLES[name]
        sites = sorted({sighting.site for sighting in history})
        lines = {site: _curve(history, site) for site in sites}
        for rounds, values in lines.values():
            axes.plot(rounds, values, color=colour, linewidth=0.7, alpha=0.35)
        axes.plot(*_mean(list(lines.values())), color=colour, linewidth=2.4, label=label)
    axes.plot(
        [at for at, _ in pooled],
        [100 * value for _, value in pooled],
        color="black",
        linestyle=":",
        label="all data in one place",
    )
    axes.set(xlabel="rounds", ylabel="accuracy on all classes, %", ylim=(0, 100), xlim=(0, None))
    axes.set_title("Eight sites that keep their data, two or three classes each", loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(loc="center right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _curve(history: Sequence[Sighting], site: str) -> tuple[list[int], list[float]]:
    own = [sighting for sighting in history if sighting.site == site]
    return [one.round for one in own], [100 * one.value for one in own]


def _mean(lines: Sequence[tuple[list[int], list[float]]]) -> tuple[list[int], list[float]]:
    """The mean over sites at every round some site was seen at, each taken at its newest value by then."""
    rounds = sorted({at for line, _ in lines for at in line})
    means = [sum(_value_at(line, at) for line in lines) / len(lines) for at in rounds]
    return rounds, means


def _value_at(line: tuple[list[int], list[float]], at: int) -> float:
    rounds, values = line
    known = [value for when, value in zip(rounds, values, strict=True) if when <= at]
    return known[-1] if known else values[0]
