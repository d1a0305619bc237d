"""Reads a job: text to data, overrides, types, checks between values; reports all problems at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path as FilePath
from types import UnionType
from typing import Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from concord.errors import JobError
from concord.job.checks import cross_checks
from concord.job.model import Job
from concord.job.names import TASKS
from concord.job.overrides import apply_override
from concord.job.problems import JobFileError, JobProblem, Path
from concord.job.source import Document, read_document
from concord.suggest import nearest

_STAND_INS: Mapping[str, object] = {"name": "unnamed", "task": TASKS[0]}
"""For required keys that are wrong, so that what does not depend on them can still be checked."""
_SECTIONS_OF_SINGLE_VALUES = ("training", "sites")
_DEPENDS_ON = {"topology": ("sites",), "simulation": ("sites", "topology")}
"""Sections that name what others define."""


def load_job(path: FilePath | str, overrides: Sequence[str] = ()) -> Job:
    """The job in a file with each `key=value` of `overrides` laid over it in turn.

    JobError if the file cannot be read, JobFileError with every problem found otherwise.
    """
    try:
        text = FilePath(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError(f"the job file {path} cannot be read: {reason}") from error
    return parse_job(text, overrides, source=str(path))


def parse_job(text: str, overrides: Sequence[str] = (), source: str = "job") -> Job:
    """The job in a text; `source` names it in errors."""
    document = read_document(text, source)
    for assignment in overrides:
        apply_override(document, assignment)
    job, problems = _validated(document)
    problems = [*document.problems, *problems]
    if problems or job is None:
        raise JobFileError(source, problems)
    return job


def _validated(document: Document) -> tuple[Job | None, list[JobProblem]]:
    """The job if every single value is right, and all problems, those between values included."""
    try:
        job = Job.model_validate(document.data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [_problem(document, detail) for detail in details]
        wrong = [_clean(detail["loc"]) for detail in details]
        return None, problems + _other_problems(document, wrong)
    return job, [document.problem(path, message) for path, message in cross_checks(job)]


def _other_problems(document: Document, wrong: Sequence[Path]) -> list[JobProblem]:
    """What the checks across values say of the sections that have no wrong value in them."""
    try:
        job = Job.model_validate({**_STAND_INS, **_without(document.data, wrong)})
    except ValidationError:
        return []  # without sites there is nothing to check
    findings = [(path, text) for path, text in cross_checks(job) if not _doubtful(path, wrong)]
    return [document.problem(path, text) for path, text in findings]


def _doubtful(path: Path, wrong: Sequence[Path]) -> bool:
    """Whether a finding may be only a consequence of the wrong values that were left out."""
    sections = {place[0] for place in wrong if place}
    if path[0] in _SECTIONS_OF_SINGLE_VALUES:
        return path in wrong
    return path[0] in sections or not sections.isdisjoint(_DEPENDS_ON.get(str(path[0]), ()))


def _without(data: Mapping[str, object], paths: Sequence[Path]) -> dict[str, object]:
    kept = deepcopy(dict(data))
    for path in paths:
        _remove(kept, path)
    return kept


def _remove(place: dict[str, object], path: Path) -> None:
    """Take out the value at a path, or the innermost keyed value around it."""
    key = str(path[0])
    inner = place.get(key)
    if len(path) > 1 and isinstance(inner, dict):
        _remove(inner, path[1:])
    else:
        place.pop(key, None)


def _problem(document: Document, detail: ErrorDetails) -> JobProblem:
    path = _clean(detail["loc"])
    unknown_key = detail["type"] == "extra_forbidden"
    message = _unknown_key(path) if unknown_key else _message(detail)
    return document.problem(path, message, at_key=unknown_key or "[key]" in detail["loc"])


def _clean(loc: tuple[str | int, ...]) -> Path:
    """Pydantic's location without its own marks, such as the one that says that a key is meant."""
    return tuple(part for part in loc if isinstance(part, int) or not set(part) & set("[]()"))


def _message(detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return text
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] in ("model_type", "dict_type"):
        return f"should be a mapping of keys to values, found {detail['input']!r}"
    text = text.replace("Input should be", "should be").replace("String should", "should")
    return f"{text}, found {detail['input']!r}"


def _unknown_key(path: Path) -> str:
    *above, key = path
    section = _section(tuple(above))
    known = list(section.model_fields) if section else []
    guess = nearest(str(key), known)
    if guess:
        return f"unknown key; did you mean '{guess}'?"
    elsewhere = [dotted_key for dotted_key in _all_keys() if dotted_key.endswith(f".{key}")]
    if elsewhere:
        return f"unknown key here; did you mean '{elsewhere[0]}'?"
    return f"unknown key; known: {', '.join(known)}"


def _section(path: Path) -> type[BaseModel] | None:
    """The model of the section at a path."""
    model: type[BaseModel] | None = Job
    for part in path:
        if model is not None and part in model.model_fields:
            model = _model_in(model.model_fields[str(part)].annotation)
        # else: the name of a site, whose section is the one found for all of them
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (dict, tuple, Union, UnionType):
        found = (_model_in(argument) for argument in get_args(annotation))
        return next((model for model in found if model), None)
    return None


def _all_keys() -> Iterator[str]:
    for name, info in Job.model_fields.items():
        section = _model_in(info.annotation)
        yield from (f"{name}.{key}" for key in (section.model_fields if section else ()) if name != "sites")
