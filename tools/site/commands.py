"""The `concord` commands and their options as Markdown, out of the command line itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
import typer

from concord.cli.main import COMMANDS, create_app


def markdown() -> str:
    """A part per command: what it does, and what may be given to it."""
    group = typer.main.get_command(create_app())
    assert isinstance(group, click.Group)
    names = [name for commands in COMMANDS.values() for name in commands]
    return "\n".join(line for name in names for line in _command(f"concord {name}", group.commands[name]))


def _command(name: str, command: click.Command) -> Iterator[str]:
    yield f"## `{name}`\n\n{_plain(command.help)}\n"
    if isinstance(command, click.Group):
        for part, inner in command.commands.items():
            yield from (line.replace("## `", "### `", 1) for line in _command(f"{name} {part}", inner))
        return
    rows = [row for parameter in command.params if (row := _row(parameter))]
    if rows:
        yield "\n".join(["| | default | |", "|---|---|---|", *rows, ""])


def _row(parameter: click.Parameter) -> str | None:
    if isinstance(parameter, click.Option):
        if parameter.hidden:
            return None
        name = ", ".join(f"`{one}`" for one in [*parameter.opts, *parameter.secondary_opts])
    else:
        name = f"`{parameter.make_metavar(click.Context(click.Command('')))}`"
    default = parameter.default
    shown = "" if default is None or callable(default) or default in (False, (), []) else f"`{default}`"
    return f"| {name} | {shown} | {_plain(getattr(parameter, 'help', None))} |"


def _plain(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
