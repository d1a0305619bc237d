"""What `concord doctor` finds, as values, and what its examinations look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from concord.job import Job
from concord.settings import Settings


class Level(StrEnum):
    """How bad a finding is; only FAIL makes the command fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `remedy` is empty if nothing need be done."""

    level: Level
    subject: str
    detail: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Patient:
    """What the examinations look at; `job` is None if none was given, or it is wrong."""

    job: Job | None
    settings: Settings
    environment: Mapping[str, str]
    base_port: int


Examination = Callable[[Patient], Iterator[Finding]]
