"""Checks of a job's values against each other, none of which needs the data, the model or torch."""

from __future__ import annotations

from collections.abc import Iterator

from concord.consensus.graph import Topology
from concord.errors import TopologyError
from concord.job.model import Job
from concord.job.names import (
    ALGORITHM_OPTIONS,
    ALGORITHMS_OF_TWO_STEPS,
    LOSSES,
    METRICS,
    SPLIT_OPTIONS,
    TOPOLOGY_OPTIONS,
)
from concord.job.problems import Path
from concord.job.simulation_checks import simulation_checks

Finding = tuple[Path, str]
"""The path of a value, and what is wrong with it."""


def cross_checks(job: Job) -> Iterator[Finding]:
    """Everything that is wrong with a job whose single values are right."""
    yield from _task(job)
    yield from _split(job)
    yield from _topology(job)
    yield from _local_steps(job)
    yield from _privacy(job)
    yield from _damping(job)
    yield from _algorithm(job)
    if job.serving.personal is not None and job.training.local:
        yield ("serving", "personal"), "has no meaning with training.local: the model that is served is the site's own"


def _task(job: Job) -> Iterator[Finding]:
    task = job.task
    if task.name is not None and task.data is not None:
        yield ("task", "data"), f"cannot be given: the built-in task '{task.name}' has its own data"
    if task.name is None:
        for key in ("model", "data"):
            if getattr(task, key) is None:
                yield ("task", key), "is missing: a task is a built-in name, or a model and data of your own"
    for key, own_names in (("model", ()), ("data", ()), ("loss", LOSSES), ("metric", METRICS)):
        reference = getattr(task, key)
        if reference is not None and reference not in own_names and not _is_reference(reference):
            either = f"one of {', '.join(own_names)} or " if own_names else ""
            yield ("task", key), f"should be {either}module:function, found '{reference}'"


def _is_reference(text: str) -> bool:
    module, _, function = text.partition(":")
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _split(job: Job) -> Iterator[Finding]:
    least, most = job.split.classes
    if least > most:
        yield ("split", "classes"), f"should be [least, most], found [{least}, {most}]"
    yield from _idle_options("split", job.split.kind, SPLIT_OPTIONS, job.split.model_fields_set - {"seed", "shards"})
    yield from _shards(job)


def _shards(job: Job) -> Iterator[Finding]:
    shards = job.split.shards
    for name, site in job.sites.items():
        if site.shard is None:
            continue
        if shards is None:
            yield ("sites", name, "shard"), "has no meaning without split.shards, which says how many there are"
        elif site.shard >= shards:
            yield ("sites", name, "shard"), f"should be from 0 to {shards - 1}, found {site.shard}"


def _topology(job: Job) -> Iterator[Finding]:
    section = job.topology
    yield from _idle_options("topology", section.kind, TOPOLOGY_OPTIONS, section.model_fields_set)
    try:
        graph = job.topology_graph()
    except TopologyError as error:
        yield ("topology",), str(error)
        return
    yield from _tree(job, graph)
    for ours, theirs in sorted(graph.edges):
        yield from _reach(job, ours, theirs)
    yield from simulation_checks(job.simulation, job.site_names, graph.edges)


def _idle_options(section: str, kind: str, options: dict[str, tuple[str, ...]], given: set[str]) -> Iterator[Finding]:
    for key in sorted(given - {"kind"} - set(options[kind])):
        users = ", ".join(name for name, keys in options.items() if key in keys)
        yield (section, key), f"has no meaning for the {section} '{kind}', only for {users}"


def _reach(job: Job, ours: str, theirs: str) -> Iterator[Finding]:
    reach = job.sites[ours].reach
    if reach == "both" or reach != job.sites[theirs].reach:
        return
    both = "can only call out" if reach == "outbound" else "can only be called"
    yield (
        ("sites", ours, "reach"),
        f"{ours} and {theirs} are neighbours and both {both}: no update could pass",
    )


def _local_steps(job: Job) -> Iterator[Finding]:
    name = job.algorithm.name
    if name not in ALGORITHMS_OF_TWO_STEPS:
        return
    message = f"should be 2 or more for the algorithm '{name}', found 1"
    if job.training.local_steps < 2:
        yield ("training", "local_steps"), message
    for site, section in job.sites.items():
        if section.local_steps == 1:
            yield ("sites", site, "local_steps"), message


def _privacy(job: Job) -> Iterator[Finding]:
    if job.privacy is not None and job.serving.personal is not None:
        message = "cannot be beside privacy: a variant of the site's own is trained on its samples without noise"
        yield ("serving", "personal"), message
    if job.privacy is not None and job.training.clip is not None:
        message = "has no meaning beside privacy, whose max_grad_norm clips the gradient of each sample"
        yield ("training", "clip"), message


def _damping(job: Job) -> Iterator[Finding]:
    if job.training.mean_damping not in (None, 1) and job.training.local:
        message = "cannot be beside local: it is right where sites agree on the model, and these parameters differ"
        yield ("training", "mean_damping"), message


def _algorithm(job: Job) -> Iterator[Finding]:
    name, given = job.algorithm.name, job.algorithm.model_fields_set
    for key, users in ALGORITHM_OPTIONS.items():
        if key in given and name not in users and getattr(job.algorithm, key) is not None:
            hint = "; see penalty_scale" if key == "penalty" else ""
            yield ("algorithm", key), f"has no meaning for the algorithm '{name}', only for {', '.join(users)}{hint}"


def _tree(job: Job, graph: Topology) -> Iterator[Finding]:
    if job.algorithm.name == "relay-sgd" and len(graph.edges) >= len(graph.sites):
        yield (
            ("topology",),
            f"should be a tree for the algorithm 'relay-sgd', such as chain or star, which has {len(graph.sites) - 1} "
            f"edges between {len(graph.sites)} sites, found {len(graph.edges)}",
        )
