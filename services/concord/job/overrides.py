"""`--set key=value`: changes to a job's plain data before it is checked. Knows the short forms, not the
types.
"""

from __future__ import annotations

from collections.abc import Callable

from concord.job.model import site_mapping
from concord.job.problems import JobFileError, JobProblem, Path
from concord.job.source import Document, read_value

_LONG_FORM: dict[str, Callable[[object], object]] = {
    "task": lambda word: {"name": word},
    "algorithm": lambda word: {"name": word},
    "split": lambda word: {"kind": word},
    "topology": lambda word: {"kind": word},
    "sites": site_mapping,
}


def apply_override(document: Document, assignment: str) -> None:
    """Change one value of the document; JobFileError if the assignment cannot be carried out."""
    key, equals, text = assignment.partition("=")
    try:
        if not equals or not key:
            raise ValueError(f"{assignment!r} should be key=value, such as training.rounds=50")
        path = _parse(key)
        _put(document.data, path, read_value(text))
    except ValueError as error:
        raise JobFileError(document.source, [JobProblem(None, None, key, str(error))]) from error
    document.overridden.append(key)


def _parse(key: str) -> Path:
    parts = key.split(".")
    if not all(parts):
        raise ValueError(f"{key!r} has an empty part")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _put(data: dict[str, object], path: Path, value: object) -> None:
    top = str(path[0])
    if len(path) > 1 and top in _LONG_FORM and not isinstance(data.get(top, {}), dict):
        data[top] = _LONG_FORM[top](data[top])
    place: object = data
    for part in path[:-1]:
        place = _child(place, part)
    if isinstance(place, list):
        place[_index(place, path[-1])] = value
    elif isinstance(place, dict):
        place[str(path[-1])] = value
    else:
        raise ValueError(f"there is nothing to set inside {place!r}")


def _child(place: object, part: str | int) -> object:
    if isinstance(place, list):
        return place[_index(place, part)]
    if not isinstance(place, dict):
        raise ValueError(f"there is nothing to set inside {place!r}")
    if place.get(str(part)) is None:
        place[str(part)] = {}
    return place[str(part)]


def _index(items: list[object], part: str | int) -> int:
    if not isinstance(part, int) or part >= len(items):
        raise ValueError(f"the list has items 0 to {len(items) - 1}, not {part}")
    return part
