"""Checks of the `simulation` section against the sites and edges of its job, and of its times against each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from concord.job.problems import Path
from concord.job.simulation import CrashSection, PartitionSection, SimulationSection, SiteFaultsSection, SpanSection
from concord.suggest import unknown

Finding = tuple[Path, str]
SHORTEST = 1e-9
"""Virtual time is kept to the nanosecond; with steps shorter than that it would stand still."""
_TOP = "simulation"
_CLOCK = "virtual time is kept to the nanosecond"


def edge_names(edge: tuple[str, str]) -> tuple[str, str]:
    """Both ways to call an edge."""
    left, right = edge
    return f"{left}-{right}", f"{right}-{left}"


def simulation_checks(
    section: SimulationSection, sites: Sequence[str], edges: Collection[tuple[str, str]]
) -> Iterator[Finding]:
    """Everything that is wrong with a section whose single values are right."""
    known = {name for edge in edges for name in edge_names(edge)}
    for key in ("step_seconds", "evaluate_every"):
        yield from _length((_TOP, key), getattr(section, key))
    for name in section.edges:
        yield from _known((_TOP, "edges", name), "edge", name, known)
    for index, partition in enumerate(section.partitions):
        yield from _partition((_TOP, "partitions", index), partition, sites, known)
    for site, faults in section.sites.items():
        yield from _known((_TOP, "sites", site), "site", site, sites)
        yield from _site((_TOP, "sites", site), faults)
        if section.step_seconds / faults.speed < SHORTEST <= section.step_seconds:
            most = section.step_seconds / SHORTEST
            yield (_TOP, "sites", site, "speed"), f"should be at most {most:g}, found {faults.speed:g}: {_CLOCK}"


def _length(path: Path, seconds: float) -> Iterator[Finding]:
    if seconds < SHORTEST:
        yield path, f"should be at least {SHORTEST:g}, found {seconds:g}: {_CLOCK}"


def _known(path: Path, what: str, name: str, names: Collection[str]) -> Iterator[Finding]:
    if name not in names:
        yield path, unknown(what, name, names)


def _partition(
    path: Path, partition: PartitionSection, sites: Sequence[str], edges: Collection[str]
) -> Iterator[Finding]:
    if not partition.edges and not partition.sites:
        yield path, "should name the edges or the sites that it cuts off"
    for index, name in enumerate(partition.edges):
        yield from _known((*path, "edges", index), "edge", name, edges)
    for index, name in enumerate(partition.sites):
        yield from _known((*path, "sites", index), "site", name, sites)
    yield from _span(path, partition)


def _site(path: Path, faults: SiteFaultsSection) -> Iterator[Finding]:
    for index, pause in enumerate(faults.pauses):
        yield from _span((*path, "pauses", index), pause)
    for index, (before, after) in enumerate(pairwise(faults.pauses)):
        if after.start < before.end:
            yield (*path, "pauses", index + 1, "start"), _after("end of the pause before", before.end, after.start)
    yield from _crashes(path, faults.crashes)
    if faults.joins is not None and faults.joins == faults.leaves:
        yield (*path, "leaves"), f"should be at another time than joins, {faults.joins:g}"


def _crashes(path: Path, crashes: Sequence[CrashSection]) -> Iterator[Finding]:
    for index, (before, after) in enumerate(pairwise(crashes)):
        up = before.at + before.down
        if after.at < up:
            yield (*path, "crashes", index + 1, "at"), _after("end of the crash before", up, after.at)


def _span(path: Path, span: SpanSection) -> Iterator[Finding]:
    if span.end <= span.start:
        yield (*path, "end"), f"should be after start, which is {span.start:g}, found {span.end:g}"


def _after(what: str, earliest: float, found: float) -> str:
    return f"should not be before the {what}, {earliest:g}, found {found:g}"
