"""YAML text to plain data that remembers where each value stands. Knows nothing of what a job means.

Scalars follow YAML 1.2: `1e-3` is a number, and `no` and `on` are words (a site may be called so).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from concord.job.problems import JobFileError, JobProblem, Path, dotted


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of YAML 1.2's core schema in place of those of YAML 1.1."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  the attribute is PyYAML's, and so is its type


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("null", r"~|null|", "~n\0"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first, ""])


@dataclass(frozen=True, slots=True)
class Position:
    """Where a key and its value begin; lines and columns count from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Document:
    """A job file's text as plain data, with the positions of keys and values by path."""

    source: str
    data: dict[str, object] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    overridden: list[str] = field(default_factory=list)
    problems: list[JobProblem] = field(default_factory=list)

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> JobProblem:
        """A problem with the value (or the key) at a path, placed at the nearest part that the text has."""
        if self._is_overridden(path):
            return JobProblem(None, None, dotted(path), message)
        own = (self.keys if at_key else self.values).get(path)
        above = (self.values[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.values)
        position = own or next(above, Position(1, 1))
        return JobProblem(position.line, position.column, dotted(path), message)

    def _is_overridden(self, path: Path) -> bool:
        """Whether an override gave the value at a path, or something above it, or is why it exists at all."""
        own, in_text = f"{dotted(path)}.", path in self.values
        return any(
            own.startswith(f"{given}.") or (not in_text and f"{given}.".startswith(own)) for given in self.overridden
        )


def read_document(text: str, source: str) -> Document:
    """The text as a document; JobFileError if it is not YAML, or not a mapping. Duplicate keys become
    problems.
    """
    document = Document(source)
    try:
        root = yaml.compose(text, Loader=_Loader)
        data = _plain(root, (), document) if root is not None else {}
    except yaml.MarkedYAMLError as error:
        raise JobFileError(source, [_yaml_problem(error)]) from error
    except yaml.YAMLError as error:
        raise JobFileError(source, [JobProblem(1, 1, "", f"not YAML: {error}")]) from error
    if not isinstance(data, dict):
        raise JobFileError(source, [JobProblem(1, 1, "", "a job is a mapping of keys to values")])
    document.data = data
    return document


def read_value(text: str) -> object:
    """One value as written after `=` in an override; ValueError if it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not YAML") from error


def _yaml_problem(error: yaml.MarkedYAMLError) -> JobProblem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return JobProblem(line, column, "", f"not YAML: {error.problem}")


def _plain(node: yaml.Node, path: Path, document: Document) -> object:
    document.values[path] = _position(node)
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), document) for index, item in enumerate(node.value)]
    return _scalar(node)


def _plain_mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[str, object]:
    plain: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        here = (*path, key)
        if key in plain:
            first = document.keys[here]
            message = f"the key is given twice; it first stands in line {first.line}"
            position = _position(key_node)
            document.problems.append(JobProblem(position.line, position.column, dotted(here), message))
            continue
        document.keys[here] = _position(key_node)
        plain[key] = _plain(value_node, here, document)
    return plain


def _scalar(node: yaml.Node) -> object:
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _position(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)
