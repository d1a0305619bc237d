"""What the marks of a run say: when each round was known, medians over runs, and whether the targets are met.

Must not know clocks, files, processes, or who ran.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median


@dataclass(frozen=True, slots=True)
class Mark:
    """One measurement of one model: the time (seconds since the epoch) when it was known, and the accuracy."""

    at: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Course:
    """One run in seconds from its command: when the model(s) after each round were measured, and its end.

    `accuracy` is the mean over the model(s) after the last round, `load` the machine's just before the command.
    """

    rounds: tuple[float, ...]
    total: float
    accuracy: float
    load: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the runs of one contender; `warm_round` over all rounds but the first. `megabytes` is a peak."""

    first_round: float
    warm_round: float
    total: float
    megabytes: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many times less one side needs of something than the other, against what was aimed at."""

    what: str
    target: float
    ratio: float

    @property
    def met(self) -> bool:
        """Whether the ratio reaches the target."""
        return self.ratio >= self.target


TARGETS = (("first_round", 20.0), ("warm_round", 10.0), ("megabytes", 5.0))


def read_marks(text: str) -> list[Mark]:
    """From JSON, one mark to the line."""
    return [Mark(**json.loads(line)) for line in text.splitlines()]


def course(marks: Sequence[Mark], models: int, rounds: int, began: float, ended: float, load: float) -> Course:
    """A run that left `models` marks before its first round and after each; ValueError if it left another number."""
    if len(marks) != models * (rounds + 1):
        raise ValueError(
            f"{len(marks)} marks of {models} models and {rounds} rounds; should be {models * (rounds + 1)}"
        )
    after = [marks[start : start + models] for start in range(models, len(marks), models)]
    times = tuple(group[-1].at - began for group in after)
    return Course(times, ended - began, fmean(mark.accuracy for mark in after[-1]), load)


def summarise(courses: Sequence[Course], megabytes: float) -> Summary:
    """Of at least one run with at least two rounds."""
    gaps = [later - earlier for one in courses for earlier, later in pairwise(one.rounds)]
    return Summary(
        first_round=median(one.rounds[0] for one in courses),
        warm_round=median(gaps),
        total=median(one.total for one in courses),
        megabytes=megabytes,
        accuracy=median(one.accuracy for one in courses),
    )


def verdicts(ours: Summary, theirs: Summary) -> list[Verdict]:
    """One per target."""
    return [Verdict(what, target, getattr(theirs, what) / getattr(ours, what)) for what, target in TARGETS]
