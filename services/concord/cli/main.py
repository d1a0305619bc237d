"""The `concord` command. Importing it must stay light: what needs torch is imported by the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from concord import __version__
from concord.cli import demo, doctor, figure, predict, processes, simulate, status, up, validate
from concord.cli.render import exit_code, print_error
from concord.errors import ConcordError

COMMANDS: tuple[Callable[[typer.Typer], None], ...] = (
    validate.register,
    doctor.register,
    status.register,
    predict.register,
    processes.register,
    up.register,
    simulate.register,
    figure.register,
    demo.register,
)
"""Each adds its commands to the application, in the order in which `--help` lists them."""


def create_app() -> typer.Typer:
    """The application with all its commands."""
    app = typer.Typer(name="concord", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(_common)
    for register in COMMANDS:
        register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; SystemExit with 0, 1, 2 (job or setting) or 3 (machine)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        create_app()(args=given, prog_name="concord")
    except ConcordError as error:
        print_error(error, as_json="--json" in given)
        raise SystemExit(exit_code(error)) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One model trained across many places whose data stays where it is."""
