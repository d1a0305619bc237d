"""`--tensorboard` and `--mlflow` of the commands that run or follow sites, and `concord track`, which only follows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from concord.cli.fleet_table import Status
from concord.cli.runfile import require_run_file
from concord.cli.stopping import interruptible
from concord.cli.watch import FleetWatch
from concord.console.places import parse_sites
from concord.errors import EnvironmentProblem, JobError
from concord.tracking.port import Tracker

if TYPE_CHECKING:
    from concord.simulate.report import Point

TensorBoardDir = Annotated[
    Path | None, typer.Option("--tensorboard", help="Folder where TensorBoard shall find the curves.")
]
MlflowUri = Annotated[str | None, typer.Option("--mlflow", help="MLflow's tracking URI, such as http://host:5000.")]
_TICK = 0.25
"""Seconds between two looks at the sites."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("track")(track)


def track(
    tensorboard: TensorBoardDir = None,
    mlflow: MlflowUri = None,
    sites: Annotated[
        list[str] | None, typer.Option(help="N1=http://host:port,N2=...; default: the fleet that `up` runs here.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the curves are kept under; default: the run file's name.")] = "",
    until_finished: Annotated[
        bool, typer.Option("--until-finished", help="End when every site has done its last round.")
    ] = False,
) -> None:
    """Follow a running fleet and keep its curves in TensorBoard, MLflow or both."""
    if tensorboard is None and mlflow is None:
        raise JobError("say where to keep the curves: --tensorboard FOLDER, --mlflow URI, or both")
    if sites and not name:
        raise JobError("say with --name what the curves of these sites are to be kept under")
    running = None if sites else require_run_file(os.environ)
    urls = parse_sites(sites or (), "--sites") if running is None else dict(running.sites)
    federation = name or (running.name if running is not None else "")
    with (
        interruptible() as stop,
        tracking_to(tensorboard, mlflow, federation) as trackers,
        FleetWatch(urls) as watch,
    ):
        following = Following(trackers)
        typer.echo(f"following {len(urls)} sites as run {following.run} (Ctrl-C stops)")
        while not stop.wait(_TICK):
            finished = watch.finished
            following.take(watch.statuses)
            if until_finished and finished:
                break


@contextmanager
def tracking_to(tensorboard: Path | None, mlflow: str | None, federation: str) -> Iterator[list[Tracker]]:
    """The trackers that were asked for, closed at the end; EnvironmentProblem for one that cannot be used.

    One that cannot be closed is told of on stderr: what was run has its results all the same.
    """
    with ExitStack() as stack:
        trackers: list[Tracker] = []
        if tensorboard is not None:
            from concord.tracking.tensorboard import TensorBoard

            trackers.append(TensorBoard(tensorboard, federation))
        if mlflow is not None:
            from concord.tracking.mlflow import MLflow

            trackers.append(MLflow(mlflow, federation))
        for one in trackers:
            stack.callback(_close, one)
        yield trackers


def _close(tracker: Tracker) -> None:
    try:
        tracker.close()
    except EnvironmentProblem as error:
        _tell(f"the curves may lack their end: {error}")


def _tell(text: str) -> None:
    typer.echo(text, err=True)


class Following:
    """Takes in statuses of a running fleet, and logs each round of each site once.

    A tracker that fails is told of once, by `on_problem`, and left out from then on: sites do not stop for it.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        clock: Callable[[], float] = time.time,
        on_problem: Callable[[str], None] = _tell,
    ) -> None:
        self.run = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(clock()))
        self._trackers = list(trackers)
        self._on_problem = on_problem
        self._logged: dict[str, object] = {}

    def take(self, statuses: Mapping[str, Status | None]) -> None:
        """Log what is new in these."""
        for site, status in statuses.items():
            if status is None:
                continue
            progress = status["progress"]
            seen = (progress["round"], progress["metrics"])
            if seen != self._logged.get(site):
                self._logged[site] = seen
                self._log(site, progress["round"], values_of(status), status["reported_at"])

    def _log(self, site: str, step: int, values: Mapping[str, float], at: float) -> None:
        for one in list(self._trackers):
            try:
                one.log(self.run, site, step, values, at)
            except EnvironmentProblem as error:
                self._trackers.remove(one)
                self._on_problem(f"no more curves are kept: {error}")


def values_of(status: Status) -> dict[str, float]:
    """A site's curves at one time, by name; what is not known is left out."""
    progress = status["progress"]
    edges = progress["edges"].values()
    values = {
        "loss": progress["loss"],
        "steps_per_second": status["steps_per_second"],
        "consensus_distance": _largest(edge["consensus_distance"] for edge in edges),
        "staleness_seconds": _largest(edge["staleness_seconds"] for edge in edges),
        "epsilon": (status.get("privacy") or {}).get("epsilon"),
        **progress["metrics"],
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def _largest(values: Iterator[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def log_points(trackers: Sequence[Tracker], metric: str, points: Sequence[Point]) -> None:
    """The curves of a simulation: each setting with each seed is a run. Times are virtual, from the Unix epoch on."""
    for tracker in trackers:
        for point in points:
            for one in point.runs:
                run = f"{point.label or point.algorithm} seed={one.seed}"
                for row in one.run.rows:
                    values = {metric: row.metric, "test_loss": row.loss}
                    tracker.log(run, row.site, row.round, values, row.seconds)
