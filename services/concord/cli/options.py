"""Command-line options that several commands share, so that they are spelt and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JobArgument = Annotated[Path, typer.Argument(metavar="JOB", help="The job file (YAML).", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the job, e.g. training.rounds=50."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Urls = Annotated[
    list[str] | None,
    typer.Option("--url", help="A site's base URL; may be repeated. Default: the fleet that `up` runs here."),
]
