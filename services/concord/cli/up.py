"""`concord up`: a whole federation on this machine, watched live, until Ctrl-C."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from concord.apps.local import BASE_PORT, LocalFleet
from concord.cli.console_beside import ConsoleBeside
from concord.cli.fleet_table import fleet_table
from concord.cli.models import admin_token
from concord.cli.options import AsJson, JobArgument, Overrides, read_log_settings
from concord.cli.render import console, print_json
from concord.cli.runfile import RunFile, remove_run_file, run_file_path, write_run_file
from concord.cli.stopping import interruptible
from concord.cli.tracking import Following, MlflowUri, TensorBoardDir, tracking_to
from concord.cli.watch import FleetWatch
from concord.job import Job, load_job

_TICK = 0.25
"""Seconds between two looks at the fleet."""
_INCIDENTS_SHOWN = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(up)


def up(
    job: JobArgument,
    overrides: Overrides = None,
    as_json: AsJson = False,
    base_port: Annotated[int, typer.Option(help="Port of the first site; the others follow.")] = BASE_PORT,
    state_dir: Annotated[
        Path | None, typer.Option(help="Keep checkpoints here for a later run. Default: forget them.")
    ] = None,
    until_finished: Annotated[
        bool, typer.Option("--until-finished", help="End when every site has done its last round.")
    ] = False,
    open_console: Annotated[
        bool, typer.Option("--open", help="Show the fleet in the browser: `concord console`.")
    ] = False,
    tensorboard: TensorBoardDir = None,
    mlflow: MlflowUri = None,
) -> None:
    """Run all sites of a job on this machine, each a real process, and show how they come to agree."""
    loaded = load_job(job, overrides or ())
    loaded.require_deployable()
    run_file = run_file_path(os.environ)
    token = admin_token(None, os.environ)
    common = read_log_settings(None, None, os.environ)
    with (
        interruptible() as stop,
        tracking_to(tensorboard, mlflow, loaded.name) as trackers,
        LocalFleet(loaded, base_port, state_dir, admin_token=token, common=common) as fleet,
    ):
        write_run_file(run_file, RunFile(loaded.name, str(job), dict(fleet.urls), os.getpid()))
        try:
            beside = ConsoleBeside(loaded.name) if open_console else None
            if beside is not None and not as_json:
                console().print(f"console at {beside.url}")
            with beside or nullcontext(), FleetWatch(fleet.urls) as watch:
                tracking = Following(trackers)
                follow(loaded, fleet, watch, stop, tracking, quiet=as_json, until_finished=until_finished)
        finally:
            remove_run_file(run_file)
    if as_json:
        print_json({"name": loaded.name, "seconds": watch.elapsed, "sites": watch.statuses})


def follow(
    job: Job,
    fleet: LocalFleet,
    watch: FleetWatch,
    stop: threading.Event,
    tracking: Following | None = None,
    *,
    quiet: bool,
    until_finished: bool,
) -> None:
    """Keep the fleet alive and the table fresh until `stop`, or until all sites are done if so asked."""
    screen = console()
    screen.quiet = quiet
    with Live(fleet_view(job, fleet, watch), console=screen, refresh_per_second=4) as live:
        while not stop.wait(_TICK):
            fleet.supervise()
            live.update(fleet_view(job, fleet, watch))
            finished = watch.finished
            if tracking is not None:
                tracking.take(watch.statuses)
            if until_finished and finished:
                break
    if not screen.is_terminal:
        screen.print()


def fleet_view(job: Job, fleet: LocalFleet, watch: FleetWatch) -> Group:
    """The live view: a row per site, and below it what went wrong lately and where to ask."""
    title = f"{job.name} · {job.algorithm.name} · {job.topology.kind} · {watch.elapsed:.0f} s"
    return Group(fleet_table(title, watch.statuses, absent="starting"), *_footer(fleet))


def _footer(fleet: LocalFleet) -> list[Text]:
    lines = [
        Text(f"{one.site}: {one.process} ended, started again", style="yellow")
        for one in fleet.incidents[-_INCIDENTS_SHOWN:]
    ]
    first = next(iter(fleet.urls.values()))
    return [*lines, Text(f"{first}/v1/status · concord status · concord predict · Ctrl-C stops", style="dim")]
