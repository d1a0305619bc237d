"""`concord validate`: what is wrong with a job, line by line, or a summary of what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table

from concord.cli.options import AsJson, JobArgument, Overrides
from concord.cli.render import console, print_json, table
from concord.errors import TaskError
from concord.job import Job, load_job

ClassCounts = Mapping[str, Mapping[str, int]]
"""For each site, how many of its training samples are of each class."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate")(validate)


def validate(
    job: JobArgument,
    overrides: Overrides = None,
    as_json: AsJson = False,
    data: Annotated[
        bool, typer.Option(help="Also deal out the data and show the classes of each site.")
    ] = True,
) -> None:
    """Check a job file: all problems with their lines (exit 2), or a summary of what it asks for."""
    loaded = load_job(job, overrides or ())
    split, missing = _split(loaded) if data else (None, None)
    summary = summarise(loaded)
    if as_json:
        print_json({"valid": True, **summary, "split": split, "data": missing})
        return
    console().print(_overview(summary))
    if split:
        console().print(_split_table(split))
    if missing:
        console().print(f"[yellow]The data are not available here:[/] {missing}", markup=True)


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
    shown["sites"] = " ".join(summary["sites"]) if isinstance(summary["sites"], list) else ""
    shown["overridden"] = summary["overridden"] or "none"
    return table("The job is valid", ("key", "value"), shown.items())


def _split(job: Job) -> tuple[ClassCounts | None, str | None]:
    """The class counts of each site, or why they cannot be had on this machine."""
    from concord.cli.data import class_counts

    try:
        return class_counts(job), None
    except TaskError as error:
        return None, str(error)


def _split_table(split: ClassCounts) -> Group:
    classes = sorted({name for counts in split.values() for name in counts})
    rows = [
        (site, sum(counts.values()), *(counts.get(name) or "·" for name in classes))
        for site, counts in split.items()
    ]
    return Group(table("Training samples by site and class", ("site", "samples", *classes), rows))
