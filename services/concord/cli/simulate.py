"""`concord simulate`: a job's sites under virtual time, over seeds and a grid of settings; results, curves, a table."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from concord import __version__
from concord.cli.options import AsJson, JobArgument, Overrides
from concord.cli.render import console, print_json, table
from concord.cli.running import make_folder, run_sweep, unwritable
from concord.cli.tracking import MlflowUri, TensorBoardDir, log_points, tracking_to
from concord.errors import JobError
from concord.job import Job, load_job
from concord.job.source import read_value

if TYPE_CHECKING:
    from concord.apps.sweep import Settings
    from concord.simulate.report import Point

COLUMNS = ("setting", "mean", "worst", "spread", "pooled", "bytes", "rounds")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate")(simulate)


def simulate(
    job: JobArgument,
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option(min=1, help="Run so often, each time with other draws.")] = 1,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2", help="Run with each of these values; several options make a grid."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.json, results.csv and curves.")] = Path("out/simulate"),
    reference: Annotated[bool, typer.Option(help="Also train on all data in one place, to compare with.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one tensor operation.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Runs at once, each in a process of its own.")] = 1,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, or cuda:1 of several.")] = "cpu",
    tensorboard: TensorBoardDir = None,
    mlflow: MlflowUri = None,
    as_json: AsJson = False,
) -> None:
    """Run all sites of a job in this process, in virtual time, over the network that its `simulation` describes."""
    given = overrides or ()
    jobs = [(settings, _job(job, given, settings)) for settings in expand(sweep or ())]

    from concord.apps.device import usable_device
    from concord.apps.sweep import Sweep

    place = usable_device(device)
    make_folder(out)
    began = time.monotonic()
    header = _header(jobs[0][1], given, seeds, sweep or ())
    with tracking_to(tensorboard, mlflow, jobs[0][1].name) as trackers:
        points = run_sweep(Sweep(jobs, seeds, reference, threads, workers, place), quiet=as_json)
        _write(out, header, points)
        log_points(trackers, str(header["metric"]), points)
    seconds = round(time.monotonic() - began, 2)
    if as_json:
        print_json(_printed(header, points, seconds))
        return
    screen = console()
    title = f"{jobs[0][1].name}: {header['metric']} at the end, bytes per edge and round"
    screen.print(table(title, COLUMNS, _rows(points)))
    screen.print(f"{seconds} s; {out} holds results.json, results.csv, curves.png and curves.svg")


def expand(sweeps: Sequence[str]) -> Iterator[Settings]:
    """The grid of all combinations of `key=v1,v2`; one empty point if there is no sweep. JobError for another form."""
    axes = [_axis(sweep) for sweep in sweeps]
    for values in itertools.product(*(values for _, values in axes)):
        yield {key: value for (key, _), value in zip(axes, values, strict=True)}


def _axis(sweep: str) -> tuple[str, list[object]]:
    key, equals, text = sweep.partition("=")
    try:
        values = read_value(f"[{text}]")
    except ValueError:
        values = None
    if not (key and equals and isinstance(values, list) and values):
        raise JobError(f"--sweep {sweep!r} should be key=value,value, such as algorithm=ecl-isvr,gossip")
    return key, values


def _job(path: Path, overrides: Sequence[str], settings: Settings) -> Job:
    return load_job(path, [*overrides, *(f"{key}={json.dumps(value)}" for key, value in settings.items())])


def _header(job: Job, overrides: Sequence[str], seeds: int, sweeps: Sequence[str]) -> dict[str, object]:
    """What was run, in terms that do not depend on when and where."""
    from concord.apps.trainer import job_task

    return {
        "concord": __version__,
        "job": job.model_dump(mode="json"),
        "set": list(overrides),
        "sweep": list(sweeps),
        "seeds": seeds,
        "metric": job_task(job).headline,
    }


def _write(out: Path, header: Mapping[str, object], points: Sequence[Point]) -> None:
    from concord.figures.curves import draw
    from concord.simulate.report import to_csv, to_json

    try:
        (out / "results.json").write_text(to_json(header, points))
        (out / "results.csv").write_text(to_csv(points))
        draw([out / "curves.png", out / "curves.svg"], points, str(header["metric"]))
    except OSError as error:
        raise unwritable(out, error) from error


def _printed(header: Mapping[str, object], points: Sequence[Point], seconds: float) -> dict[str, object]:
    from concord.simulate.report import summarise

    results = [
        {"settings": dict(point.settings), "algorithm": point.algorithm, **asdict(summarise(point))} for point in points
    ]
    return {"metric": header["metric"], "seeds": header["seeds"], "points": results, "timing": {"seconds": seconds}}


def _rows(points: Sequence[Point]) -> Iterator[tuple[object, ...]]:
    from concord.simulate.report import summarise

    for point in points:
        end = summarise(point)
        yield (
            point.label or point.algorithm,
            end.mean,
            end.worst,
            end.spread,
            end.reference,
            round(end.bytes_per_round),
            round(end.rounds, 1),
        )
