"""What commands that run simulations share: a bar that tells how far they are, and a folder for what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from concord.cli.render import console
from concord.errors import EnvironmentProblem

if TYPE_CHECKING:
    from concord.apps.sweep import Sweep
    from concord.simulate.report import Point


def run_sweep(sweep: Sweep, *, quiet: bool) -> list[Point]:
    """All points, with a bar on the screen unless `quiet`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), disable=quiet, transient=True) as progress:
        bar = progress.add_task("", total=len(sweep.points) * sweep.seeds)

        def told(name: str, done: float) -> None:
            progress.update(bar, description=name, completed=done)

        return sweep.run(told)


def make_folder(out: Path) -> None:
    """Before anything else: a run of hours should not end for want of a folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from error


def unwritable(out: Path, error: OSError) -> EnvironmentProblem:
    """The error to raise when a file in `out` cannot be written."""
    return EnvironmentProblem(f"{out} cannot be written ({error.strerror}); choose another with --out")
