"""The `concord` command. Starting it must stay light: a command brings in its own module, and that what needs torch."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from concord import __version__, logs
from concord.cli.render import exit_code, print_error
from concord.errors import ConcordError

log = logging.getLogger(__name__)

COMMANDS = {
    "new": ("new",),
    "validate": ("validate",),
    "doctor": ("doctor",),
    "status": ("status",),
    "predict": ("predict",),
    "models": ("models",),
    "processes": ("trainer", "exchange", "inference", "site"),
    "redis_server": ("redis",),
    "fleet": ("fleet",),
    "console": ("console",),
    "tracking": ("track",),
    "certs": ("certs",),
    "up": ("up",),
    "simulate": ("simulate",),
    "figure": ("figure",),
    "demo": ("demo",),
    "explain": ("explain",),
}
"""Each module adds these commands to the application, in the order in which `--help` lists them."""


def create_app(wanted: str | None = None) -> typer.Typer:
    """The application with all its commands, or with those of the module that has the `wanted` one, if one has."""
    app = typer.Typer(name="concord", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(_common)
    known = any(wanted in commands for commands in COMMANDS.values())
    for module, commands in COMMANDS.items():
        if not known or wanted in commands:
            importlib.import_module(f"concord.cli.{module}").register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; SystemExit with 0, 1, 2 (job or setting) or 3 (machine)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        create_app(next(iter(given), None))(args=given, prog_name="concord")
    except ConcordError as error:
        if logs.is_json():
            log.critical("%s", error, extra={"code": error.code})
        else:
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
