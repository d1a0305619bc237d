"""Reads the free-form options of a task: each wrong or unknown one becomes a TaskError that names its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from concord.errors import TaskError
from concord.learning.reference import Reference
from concord.suggest import unknown

_PREFIX = "task.options"


class Options:
    """Takes options one by one; `finish` then refuses those that nobody took."""

    def __init__(self, given: Mapping[str, object]) -> None:
        self._given = given
        self._known: set[str] = set()

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """One of the `allowed` words, the first of them if not given."""
        value = self._take(name, allowed[0])
        if value not in allowed:
            raise TaskError(f"{_PREFIX}.{name}: {value!r} must be one of {', '.join(allowed)}")
        return str(value)

    def count(self, name: str, default: int) -> int:
        """A whole number of at least 1."""
        value = self._take(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise TaskError(f"{_PREFIX}.{name}: {value!r} must be a whole number of at least 1")
        return value

    def text(self, name: str) -> str | None:
        """A text, or None if not given."""
        value = self._take(name, None)
        if value is not None and not (isinstance(value, str) and value):
            raise TaskError(f"{_PREFIX}.{name}: {value!r} must be a text")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """A list of names, empty if not given; numbers stand for their digits."""
        value = self._take(name, ())
        if not isinstance(value, list | tuple) or not all(isinstance(item, str | int) for item in value):
            raise TaskError(f"{_PREFIX}.{name}: {value!r} must be a list of names")
        return tuple(str(item) for item in value)

    def shape(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers of at least 1, empty if not given."""
        value = self._take(name, ())
        if not isinstance(value, list | tuple) or not all(type(size) is int and size >= 1 for size in value):
            raise TaskError(f"{_PREFIX}.{name}: {value!r} must be a list of sizes such as [3, 32, 32]")
        return tuple(value)

    def named_like(self, reference: Reference) -> dict[str, object]:
        """All options that a parameter of the function is called like."""
        names = [parameter.name for parameter in reference.parameters()]
        self._known.update(names)
        return {name: self._given[name] for name in names if name in self._given}

    def finish(self) -> None:
        """TaskError if an option was given that nobody took, with the nearest known name."""
        for name in self._given:
            if name not in self._known:
                raise TaskError(f"{_PREFIX}: {unknown('option', name, self._known)}")

    def _take(self, name: str, default: object) -> object:
        self._known.add(name)
        return self._given.get(name, default)
