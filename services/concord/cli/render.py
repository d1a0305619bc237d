"""How commands speak: results as tables or JSON on stdout, errors as one line or JSON on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from concord.errors import ConcordError, EnvironmentProblem, JobError
from concord.job.problems import JobFileError

EXIT_OTHER, EXIT_JOB, EXIT_ENVIRONMENT = 1, 2, 3

Row = Sequence[object]


def console() -> Console:
    """A console on the present stdout; made anew each time, because stdout may be redirected."""
    return Console(highlight=False, soft_wrap=False)


def print_json(payload: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(payload, indent=2) + "\n")


def table(title: str, columns: Iterable[str], rows: Iterable[Row]) -> Table:
    """A table; a column of numbers (or None) is aligned to the right, and no number is ever cut short."""
    rows = [tuple(row) for row in rows]
    made = Table(title=title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        cells = [row[index] for row in rows]
        if cells and all(cell is None or isinstance(cell, int | float) for cell in cells):
            made.add_column(column, justify="right", min_width=max(len(_cell(cell)) for cell in cells))
        else:
            made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(escape(_cell(value)) for value in row))
    return made


def _cell(value: object) -> str:
    if value is None:
        return "·"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def bar(share: float | None, width: int = 20) -> str:
    """A share from 0 to 1 as a bar and a percentage, e.g. `████······  41.2 %`."""
    if share is None:
        return "·" * width
    full = round(min(max(share, 0.0), 1.0) * width)
    return f"{'█' * full}{'·' * (width - full)} {100 * share:5.1f} %"


def exit_code(error: ConcordError) -> int:
    """2 for a wrong job or setting, 3 for a machine that is not as needed, 1 for everything else."""
    if isinstance(error, JobError):
        return EXIT_JOB
    return EXIT_ENVIRONMENT if isinstance(error, EnvironmentProblem) else EXIT_OTHER


def print_error(error: ConcordError, *, as_json: bool) -> None:
    """Say on stderr what went wrong, and where causes and remedies are told."""
    text = f"error: {error} [concord explain {error.code}; docs/errors.md#{error.code.lower()}]"
    sys.stderr.write((json.dumps(describe_error(error)) if as_json else text) + "\n")


def describe_error(error: ConcordError) -> Mapping[str, object]:
    """An error as a JSON object: its kind, its code, its sentence, and for a job file every problem with its place."""
    described: dict[str, object] = {"error": type(error).__name__, "code": error.code, "message": str(error)}
    if isinstance(error, JobFileError):
        described["source"] = error.source
        described["problems"] = [
            {"line": p.line, "column": p.column, "key": p.key, "message": p.message} for p in error.problems
        ]
    return described
