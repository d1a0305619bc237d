"""Command-line options that several commands share, so that they are spelt and explained alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from concord.settings import PREFIX, Settings, load_settings

JobArgument = Annotated[Path, typer.Argument(metavar="JOB", help="The job file (YAML).", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the job, e.g. training.rounds=50."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
LogFormat = Annotated[
    str | None, typer.Option(help="The log as text or json. Variable: CONCORD_LOG_FORMAT.", show_default="text")
]
LogLevel = Annotated[
    str | None, typer.Option(help="debug, info, warning or error. Variable: CONCORD_LOG_LEVEL.", show_default="info")
]
Urls = Annotated[
    list[str] | None,
    typer.Option("--url", help="A site's base URL; may be repeated. Default: the fleet that `up` runs here."),
]


def read_log_settings(log_format: str | None, log_level: str | None, environment: Mapping[str, str]) -> Settings:
    """How a process that is none of a site's writes its log; its other variables, if there are any, do not matter."""
    flags = {"log_format": log_format, "log_level": log_level}
    variables = {PREFIX + name.upper() for name in flags}
    return load_settings(flags, {name: text for name, text in environment.items() if name in variables})
