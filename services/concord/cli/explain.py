"""`concord explain`: causes and remedies of an error by its code, without a network."""

from __future__ import annotations

from typing import Annotated

import typer

from concord.cli.explanations import EXPLANATIONS
from concord.cli.options import AsJson
from concord.cli.render import console, print_json, table
from concord.errors import JobError
from concord.suggest import unknown


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain")(explain)


def explain(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="As an error says it, e.g. CE-104.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell the cause and the remedy of an error by its code, or list all codes."""
    if code is None:
        _list(as_json)
        return
    wanted = code.upper()
    if wanted not in EXPLANATIONS:
        raise JobError(unknown("code", wanted, EXPLANATIONS))
    found = EXPLANATIONS[wanted]
    if as_json:
        print_json({"code": wanted, "title": found.title, "cause": found.cause, "remedy": found.remedy})
        return
    console().print(f"{wanted}: {found.title}\n\n{found.cause}\n\nWhat to do: {found.remedy}", markup=False)


def _list(as_json: bool) -> None:
    if as_json:
        print_json({code: found.title for code, found in EXPLANATIONS.items()})
        return
    console().print(table("", ("code", "what"), ((code, found.title) for code, found in EXPLANATIONS.items())))
