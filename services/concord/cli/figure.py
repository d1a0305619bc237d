"""`concord figure NAME`: runs all that a figure of the documentation shows, and writes it with a record of the runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from concord.cli.options import AsJson, Overrides
from concord.cli.render import console, print_json, table
from concord.cli.running import make_folder, run_sweep, unwritable
from concord.errors import TaskError
from concord.figures.definitions import FIGURES, POOLED, SIZES, Case, Figure, Panel, check_size, find_figure
from concord.job import Job

if TYPE_CHECKING:
    import torch

    from concord.apps.sweep import Sweep
    from concord.figures.record import Circumstances
    from concord.figures.results import Drawn
    from concord.simulate.report import Point

Planned = tuple[Panel, Case, Job]
COLUMNS = ("panel", "curve", "mean", "worst", "spread", "published")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("figure")(figure)


def figure(
    name: Annotated[str, typer.Argument(metavar="FIGURE", help=f"One of {', '.join(FIGURES)}.", show_default=False)],
    size: Annotated[str, typer.Option(help=f"How much to run: {' or '.join(SIZES)}.")] = SIZES[0],
    data: Annotated[
        Path | None, typer.Option(help="File or folder of the data set. Default: found, or downloaded.")
    ] = None,
    data_note: Annotated[
        str | None, typer.Option(help="What the data is, if it is not quite what its name says.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs with other draws. Default: as the size says.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at once. Default: as many as there are processors.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, or cuda:1 of several.")] = "cpu",
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder for picture and record. Default: out/figure-NAME.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a figure of the documentation again: run everything it shows, draw it, and record what was run."""
    wanted = find_figure(name)
    check_size(size)

    from concord.apps.device import usable_device
    from concord.figures.plan import data_override, figure_jobs
    from concord.figures.record import Circumstances

    place = usable_device(device)
    changes = [*(overrides or ()), *([data_override(data)] if data else ())]
    planned = figure_jobs(wanted, size, changes)
    folder = out or Path("out") / wanted.stem
    make_folder(folder)
    described = _describe_data(planned[0][2], data_note or wanted.data)
    began = time.perf_counter()
    sweep = _sweep(planned, seeds or wanted.seeds[size], workers, place)
    points = run_sweep(sweep, quiet=as_json)
    drawn = _drawn(wanted, size, str(described["name"]), planned, points)
    seconds = time.perf_counter() - began
    how = Circumstances(sweep.seeds, sweep.workers, sweep.threads, str(place), changes, seconds)
    record = _write(folder, drawn, described, how)
    if as_json:
        print_json(record)
        return
    screen = console()
    screen.print(table(f"{drawn.title}: {described['metric']} at the end, in %", COLUMNS, _rows(drawn)))
    screen.print(f"{seconds:.0f} s; {folder} holds {wanted.stem}.png and {wanted.stem}.json")


def _describe_data(job: Job, name: str) -> dict[str, object]:
    """Before anything is run, so that missing data is told at once."""
    from concord.apps.trainer import job_task
    from concord.figures.record import describe_data

    try:
        return describe_data(job_task(job), job.site_names, name)
    except TaskError as error:
        raise TaskError(f"{error}; --data PATH says where the data is") from error


def _sweep(planned: Sequence[Planned], seeds: int, workers: int | None, device: torch.device) -> Sweep:
    from concord.apps.processors import usable_processors
    from concord.apps.sweep import Sweep

    points = [({"curve": f"{case.label} ({panel.name})"}, job) for panel, case, job in planned]
    most = workers or usable_processors()
    return Sweep(points, seeds, with_reference=True, threads=1, workers=most, device=device)


def _drawn(figure: Figure, size: str, data_name: str, planned: Sequence[Planned], points: Sequence[Point]) -> Drawn:
    from concord.figures.results import Drawn, Finished

    finished = [(panel, Finished(case, job, point)) for (panel, case, job), point in zip(planned, points, strict=True)]
    panels = [(panel, [one for its, one in finished if its is panel]) for panel in figure.panels]
    return Drawn(figure, size, data_name, panels)


def _write(out: Path, drawn: Drawn, data: Mapping[str, object], how: Circumstances) -> dict[str, object]:
    from concord.figures.drawings import DRAWINGS
    from concord.figures.record import record

    said = record(drawn, data, how)
    try:
        (out / f"{drawn.figure.stem}.json").write_text(json.dumps(said, indent=1) + "\n")
        DRAWINGS[drawn.figure.drawing]([out / f"{drawn.figure.stem}.png"], drawn)
    except OSError as error:
        raise unwritable(out, error) from error
    return said


def _rows(drawn: Drawn) -> Iterator[tuple[object, ...]]:
    from concord.simulate.report import summarise

    for panel, finished in drawn.panels:
        ends = [summarise(one.point) for one in finished]
        pooled = next((end.reference for end in ends if end.reference is not None), None)
        yield panel.name, "all data in one place", _percent(pooled), None, None, panel.published.get(POOLED)
        for one, end in zip(finished, ends, strict=True):
            numbers = (_percent(value) for value in (end.mean, end.worst, end.spread))
            yield panel.name, one.case.label, *numbers, panel.published.get(one.case.label)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
