"""Brings in what a job names as `module:function`; errors say which key, what was found, what would be right.

Must not know what the function is for.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from concord.errors import ConcordError, TaskError
from concord.suggest import nearest


@dataclass(frozen=True, slots=True)
class Reference:
    """A function of somebody else: `key` is the job key that named it, `text` the `module:function` there."""

    key: str
    text: str
    function: Callable[..., object]

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"

    def parameters(self) -> list[inspect.Parameter]:
        """Those that can be given by position or by name; none for a function in C that does not tell."""
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except ValueError:
            return []
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return [parameter for parameter in parameters if parameter.kind in named]

    def call(self, *arguments: object, **keywords: object) -> object:
        """The function's result; TaskError with its own error as the cause if it fails."""
        try:
            return self.function(*arguments, **keywords)
        except ConcordError:
            raise
        except Exception as exc:  # foreign code may raise anything
            raise TaskError(f"{self} failed: {type(exc).__name__}: {exc}") from exc


def resolve_reference(key: str, text: str) -> Reference:
    """The function that the job names under `key`; the current directory counts as a place for modules.

    TaskError if it is not `module:function`, cannot be imported, or is no function.
    """
    module_name, colon, name = text.partition(":")
    if not (module_name and colon and name):
        raise TaskError(f"{key}: {text!r} must be module:function, as in my_package.model:build")
    module = _import(key, module_name)
    if not hasattr(module, name):
        close = nearest(name, vars(module))
        raise TaskError(f"{key}: {module_name} has no {name!r}" + (f"; did you mean {close!r}?" if close else ""))
    function = getattr(module, name)
    if not callable(function):
        raise TaskError(f"{key}: {text} is a {type(function).__name__}, not a function")
    return Reference(key, text, function)


def _import(key: str, module_name: str) -> ModuleType:
    with _current_directory_importable():
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as exc:
            missing = "it" if exc.name == module_name else f"{exc.name}, which it needs,"
            raise TaskError(
                f"{key}: cannot import {module_name}: {missing} is neither installed nor in {os.getcwd()}"
            ) from exc
        except Exception as exc:  # foreign code may raise anything
            raise TaskError(f"{key}: cannot import {module_name}: {type(exc).__name__}: {exc}") from exc


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    """An installed command does not look there by itself, unlike `python -m`."""
    directory = os.getcwd()
    if directory in sys.path:
        yield
        return
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)
