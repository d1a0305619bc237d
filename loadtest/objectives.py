"""What must hold of each kind of request, read from a file, and whether it did. Pure: knows no Locust."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("slo.yaml")
ALL = "all"
LIMITS = ("p50", "p99", "errors", "refused", "per_second")


class ObjectivesError(Exception):
    """The file of objectives is wrong: where, and what would be right."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one kind of request came to; times in milliseconds. `refused` were answered 429, the others by `errors`."""

    name: str
    requests: int
    errors: int
    refused: int
    per_second: float
    p50: float
    p99: float

    def measured(self, limit: str) -> float:
        """The number that a limit is held against: errors and refusals as shares."""
        value = float(getattr(self, limit))
        return value / max(1, self.requests) if limit in ("errors", "refused") else value


Objectives = Mapping[str, Mapping[str, float]]
"""Limits by kind of request."""


def read_objectives(profile: str, file: Path = FILE) -> Objectives:
    """The limits of a profile: those of `all` and, over them, its own. ObjectivesError if the file is not right."""
    sections = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(sections, dict):
        raise ObjectivesError(f"{file}: should be sections by profile, with {ALL!r} for every one")
    merged: dict[str, dict[str, float]] = {}
    for section in (ALL, profile):
        for name, limits in (sections.get(section) or {}).items():
            _check(limits, f"{file}: {section}.{name}")
            merged[name] = {**merged.get(name, {}), **limits}
    return merged


def _check(limits: object, place: str) -> None:
    if not isinstance(limits, dict) or not all(isinstance(value, int | float) for value in limits.values()):
        raise ObjectivesError(f"{place}: should be numbers by name, such as {{p99: 100, errors: 0}}")
    for name in limits:
        if name not in LIMITS:
            raise ObjectivesError(f"{place}.{name}: should be one of {', '.join(LIMITS)}")


def violations(outcomes: Iterable[Outcome], objectives: Objectives) -> list[str]:
    """What did not hold, a sentence each; empty if all did. A kind that was never asked for has not held."""
    found: list[str] = []
    for outcome in outcomes:
        if outcome.requests == 0:
            found.append(f"{outcome.name}: was never asked")
            continue
        for limit, bound in objectives.get(outcome.name, {}).items():
            value = outcome.measured(limit)
            if value < bound if limit == "per_second" else value > bound:
                found.append(f"{outcome.name}: {limit} is {value:.4g}, should be {_side(limit)} {bound:g}")
    return found


def table(outcomes: Sequence[Outcome], objectives: Objectives) -> str:
    """The outcomes as a Markdown table, each number with its bound where there is one."""
    lines = [
        "| request | number | per second | p50, ms | p99, ms | errors | refused (429) |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        limits = objectives.get(one.name, {})
        cells = [one.name, str(one.requests)]
        cells += [_cell(one, limit, limits) for limit in ("per_second", "p50", "p99", "errors", "refused")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(outcome: Outcome, limit: str, limits: Mapping[str, float]) -> str:
    value = outcome.measured(limit)
    shown = f"{value:.2%}" if limit in ("errors", "refused") else f"{value:.1f}"
    if limit not in limits:
        return shown
    bound = limits[limit]
    return f"{shown} ({_side(limit)} {f'{bound:.2%}' if limit in ('errors', 'refused') else f'{bound:g}'})"


def _side(limit: str) -> str:
    return "at least" if limit == "per_second" else "at most"
