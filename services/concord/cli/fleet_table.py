"""The table of a fleet: a row per site, from the JSON of `GET /v1/status`. Must not know HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from concord.cli.render import bar

Status = Mapping[str, Any]
"""The JSON of one site's status route."""

_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("site", "left"),
    ("has", "left"),
    ("round", "right"),
    ("accuracy", "left"),
    ("stale", "right"),
    ("apart", "right"),
    ("steps/s", "right"),
    ("", "left"),
)
_BAR = 10
"""Characters of the accuracy bar, so that a row fits into a terminal of 80."""
_NAMED_CLASSES = 5
"""A site with more classes than this shows how many, not which."""


def fleet_table(title: str, statuses: Mapping[str, Status | None], absent: str = "no answer") -> Table:
    """A row per site; `absent` stands in the rows of sites whose status is None."""
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column, justify in _COLUMNS:
        table.add_column(column, justify=justify, no_wrap=True)
    for site, status in statuses.items():
        table.add_row(site, *(_blank(absent) if status is None else _cells(status)))
    return table


def _blank(absent: str) -> list[Text | str]:
    return ["", "", bar(None, _BAR), "", "", "", Text(absent, style="dim")]


def _cells(status: Status) -> list[Text | str]:
    progress = status["progress"]
    value = progress["metrics"].get(status["metric"])
    phase = progress["phase"]
    return [
        _held(status["classes"]),
        f"{progress['round']}/{status['rounds']}" if status["rounds"] else f"{progress['round']}",
        Text(bar(value, _BAR), style=_shade(value)),
        _worst(progress["edges"], "staleness_seconds", "{:.1f} s"),
        _worst(progress["edges"], "consensus_distance", "{:.3f}"),
        f"{status['steps_per_second']:.0f}",
        Text(phase, style="green" if phase == "finished" else "cyan"),
    ]


def _held(classes: Mapping[str, int]) -> str:
    held = [name for name, count in classes.items() if count]
    return " ".join(held) if len(held) <= _NAMED_CLASSES else f"{len(held)} classes"


def _shade(value: float | None) -> str:
    if value is None:
        return "dim"
    return "green" if value >= 0.9 else "yellow" if value >= 0.5 else "red"


def _worst(edges: Mapping[str, Status], key: str, form: str) -> str:
    values = [edge[key] for edge in edges.values() if edge[key] is not None]
    return form.format(max(values)) if values else "-"
