"""What is wrong with a job file, as values: where, which key, what was found and what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from concord.errors import JobError

Path = tuple[str | int, ...]
"""The way to a value from the top of the file: keys of mappings and indices of lists."""


def dotted(path: Path) -> str:
    """A path as it is written after `--set`."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True, slots=True)
class JobProblem:
    """One thing that is wrong. `line` and `column` count from 1; both are None for a value given with
    `--set`.
    """

    line: int | None
    column: int | None
    key: str
    message: str

    def __str__(self) -> str:
        where = "--set" if self.line is None else f"line {self.line}, column {self.column}"
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class JobFileError(JobError):
    """Everything that is wrong with one job file, in the order of its lines; `str` has a line for each."""

    code = "CE-101"

    def __init__(self, source: str, problems: Sequence[JobProblem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0)))
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))
