"""`concord validate`: what is wrong with a job, line by line, or a summary of what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from concord.cli.options import AsJson, JobArgument, Overrides
from concord.cli.render import console, print_json, table
from concord.errors import TaskError
from concord.job import Job, load_job

if TYPE_CHECKING:
    from concord.cli.data import Holding

Split = Mapping[str, "Holding"]
"""What each site holds."""

_SPLIT_TITLE = "Training samples by site and class"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate")(validate)


def validate(
    job: JobArgument,
    overrides: Overrides = None,
    as_json: AsJson = False,
    data: Annotated[bool, typer.Option(help="Also deal out the data and show the classes of each site.")] = True,
) -> None:
    """Check a job file: all problems with their lines (exit 2), or a summary of what it asks for."""
    loaded = load_job(job, overrides or ())
    split, missing = _split(loaded) if data else (None, None)
    summary = {**summarise(loaded), "local": (_local(loaded) if data else None) or list(loaded.training.local)}
    if as_json:
        print_json({"valid": True, **summary, **_split_json(split), "data": missing})
        return
    console().print(_overview(summary))
    if split:
        console().print(_split_table(split, console().width))
    if missing:
        console().print(Text("The data are not available here: ", style="yellow").append(missing, style="default"))


def summarise(job: Job) -> dict[str, object]:
    """What a job asks for, in few words."""
    graph = job.topology_graph()
    return {
        "name": job.name,
        "digest": job.digest(),
        "task": job.task.name or f"{job.task.model} on {job.task.data}",
        "algorithm": job.algorithm.name,
        "sites": list(job.site_names),
        "topology": job.topology.kind,
        "edges": sorted(list(edge) for edge in graph.edges),
        "rounds": job.training.rounds,
        "seconds": job.training.seconds,
        "overridden": {
            name: section.model_dump(exclude_unset=True)
            for name, section in job.sites.items()
            if section.model_fields_set
        },
    }


def _overview(summary: Mapping[str, object]) -> Table:
    edges = summary["edges"]
    shown = {
        **summary,
        "edges": " ".join("-".join(edge) for edge in edges) if isinstance(edges, list) else "",
    }
    for key in ("sites", "local"):
        names = summary[key]
        shown[key] = " ".join(names) if isinstance(names, list) else ""
    shown["overridden"] = _sites_apart(summary["overridden"])
    return table("The job is valid", ("key", "value"), shown.items())


def _sites_apart(overridden: object) -> str | None:
    if not isinstance(overridden, dict) or not overridden:
        return None
    return "; ".join(
        f"{site}: {', '.join(f'{key} {value}' for key, value in changes.items())}"
        for site, changes in overridden.items()
    )


def _local(job: Job) -> list[str] | None:
    """The parameters that stay at their sites; None if that cannot be told here."""
    if not job.training.local:
        return None
    from concord.cli.data import local_parameters

    return local_parameters(job)


def _split(job: Job) -> tuple[Split | None, str | None]:
    """The class counts of each site, or why they cannot be had on this machine."""
    from concord.cli.data import class_counts

    try:
        return class_counts(job), None
    except TaskError as error:
        return None, str(error)


def _split_json(split: Split | None) -> dict[str, object]:
    if split is None:
        return {"split": None, "samples": None}
    return {
        "split": {site: dict(held.classes) for site, held in split.items()},
        "samples": {site: held.samples for site, held in split.items()},
    }


def _split_table(split: Split, width: int) -> Table:
    """A column per class if that fits into `width` characters, else all classes of a site in one cell."""
    wide = _wide_table(split)
    screen = Console(width=10_000)
    if Measurement.get(screen, screen.options, wide).maximum <= width:
        return wide
    rows = [
        (site, held.samples, ", ".join(f"{name} {count}" for name, count in held.classes.items()))
        for site, held in split.items()
    ]
    return table(_SPLIT_TITLE, ("site", "samples", "classes"), rows)


def _wide_table(split: Split) -> Table:
    classes = sorted({name for held in split.values() for name in held.classes})
    rows = [(site, held.samples, *(held.classes.get(name) for name in classes)) for site, held in split.items()]
    return table(_SPLIT_TITLE, ("site", "samples", *classes), rows)
