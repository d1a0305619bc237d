"""The `concord` commands and their options as Markdown, out of the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from concord.cli.main import COMMANDS, create_app


def markdown() -> str:
    """A part per command: what it does, and what may be given to it."""
    # Not click's classes: typer has its own, which are alike.
    commands: dict[str, Any] = typer.main.get_command(create_app()).commands  # type: ignore[attr-defined]
    names = [name for names in COMMANDS.values() for name in names]
    return "\n".join(line for name in names for line in _command(f"concord {name}", commands[name], level=2))


def _command(name: str, command: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{name}`\n\n{_plain(command.help)}\n"
    for part, inner in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {part}", inner, level + 1)
    rows = [_row(parameter) for parameter in command.params]
    if rows:
        yield "\n".join(["| | default | |", "|---|---|---|", *rows, ""])


def _row(parameter: Any) -> str:
    names = [parameter.metavar or parameter.name.upper()]
    if parameter.param_type_name == "option":
        names = [*parameter.opts, *parameter.secondary_opts]
    default = parameter.default
    shown = "" if default is None or callable(default) or default in (False, (), []) else f"`{default}`"
    return f"| {', '.join(f'`{name}`' for name in names)} | {shown} | {_plain(parameter.help)} |"


def _plain(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
