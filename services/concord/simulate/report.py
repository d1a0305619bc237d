"""Results as values, JSON and CSV: equal runs give equal bytes. Must not draw, print or write."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from statistics import fmean, stdev

from concord.simulate.experiment import Row, Run


@dataclass(frozen=True, slots=True)
class Reference:
    """Training on all data in one place with as many steps as the average site: (share of the run, metric).

    `metrics` are all of the task's at the end.
    """

    curve: tuple[tuple[float, float], ...]
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def final(self) -> float:
        """The metric at the end."""
        return self.curve[-1][1]


@dataclass(frozen=True, slots=True)
class Took:
    """Real time: seconds by the clock on the wall, and seconds of processors."""

    seconds: float
    processor_seconds: float


@dataclass(frozen=True, slots=True)
class SeedRun:
    """One run with one seed; `reference` is None if none was asked for. What the run `took` is no part of results."""

    seed: int
    run: Run
    reference: Reference | None = None
    took: Took | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep: what was set besides the job, and a run per seed."""

    settings: Mapping[str, object]
    algorithm: str
    runs: Sequence[SeedRun]

    @property
    def label(self) -> str:
        """The settings in words, `key=value` by `key=value`; empty if there is no sweep."""
        return " ".join(f"{key}={_plain(value)}" for key, value in self.settings.items())


@dataclass(frozen=True, slots=True)
class Summary:
    """The metric at the end of a point's runs.

    `mean` is over sites and seeds, `worst` the lowest of any site and seed, `spread` the standard deviation of the
    seeds' means (None for one seed), `reference` the mean over seeds. `bytes_per_round` is what a site sends over one
    edge in one round, in bytes of tensors, averaged over all.
    """

    mean: float
    worst: float
    spread: float | None
    reference: float | None
    bytes_per_round: float
    rounds: float
    seconds: float
    gave_up: int


def last_rows(run: Run) -> list[Row]:
    """The rows of the last measurement."""
    end = run.rows[-1].seconds
    return [row for row in run.rows if row.seconds == end]


def summarise(point: Point) -> Summary:
    """How a point ended."""
    ends = [last_rows(one.run) for one in point.runs]
    means = [fmean(row.metric for row in rows) for rows in ends]
    references = [one.reference.final for one in point.runs if one.reference is not None]
    posted = sum(one.run.traffic.posted for one in point.runs)
    return Summary(
        mean=fmean(means),
        worst=min(row.metric for rows in ends for row in rows),
        spread=stdev(means) if len(means) > 1 else None,
        reference=fmean(references) if references else None,
        bytes_per_round=sum(one.run.traffic.bytes for one in point.runs) / posted if posted else 0.0,
        rounds=fmean(row.round for rows in ends for row in rows),
        seconds=fmean(rows[0].seconds for rows in ends),
        gave_up=sum(len(one.run.gave_up) for one in point.runs),
    )


@dataclass(frozen=True, slots=True)
class Band:
    """The metric over virtual time, over all sites and seeds of a point: mean, least and greatest.

    `rounds` are those that the average site had done by then.
    """

    seconds: tuple[float, ...]
    rounds: tuple[float, ...]
    mean: tuple[float, ...]
    least: tuple[float, ...]
    greatest: tuple[float, ...]


def band(point: Point) -> Band:
    """What a curve of the point shows, at every time that something was measured at."""
    rows: dict[float, list[Row]] = {}
    for one in point.runs:
        for row in one.run.rows:
            rows.setdefault(row.seconds, []).append(row)
    times = sorted(rows)
    values = [[row.metric for row in rows[at]] for at in times]
    return Band(
        tuple(times),
        tuple(fmean(row.round for row in rows[at]) for at in times),
        tuple(fmean(some) for some in values),
        tuple(min(some) for some in values),
        tuple(max(some) for some in values),
    )


def pooled_curve(point: Point) -> list[tuple[float, float]]:
    """(share of the run, mean metric over seeds); empty if not all seeds have one of the same length."""
    curves = [one.reference.curve for one in point.runs if one.reference is not None]
    if not curves or len({len(curve) for curve in curves}) > 1:
        return []
    return [(together[0][0], fmean(value for _, value in together)) for together in zip(*curves, strict=True)]


def to_json(header: Mapping[str, object], points: Sequence[Point]) -> str:
    """All results but the single rows, which are in the CSV; `header` says what was run."""
    return json.dumps({**header, "points": [describe(point) for point in points]}, indent=2) + "\n"


def describe(point: Point) -> dict[str, object]:
    """A point as JSON has it."""
    return {
        "settings": dict(point.settings),
        "algorithm": point.algorithm,
        "summary": asdict(summarise(point)),
        "seeds": [_seed(one) for one in point.runs],
    }


def _seed(one: SeedRun) -> dict[str, object]:
    run, reference = one.run, one.reference
    return {
        "seed": one.seed,
        "sites": {row.site: {"metric": row.metric, "loss": row.loss, "step": row.step} for row in last_rows(run)},
        "metrics": {site: dict(metrics) for site, metrics in run.metrics.items()},
        "gave_up": list(run.gave_up),
        "traffic": asdict(run.traffic),
        "reference": asdict(reference) | {"final": reference.final} if reference else None,
    }


def to_csv(points: Sequence[Point]) -> str:
    """A row per point, seed, time and site; `point` holds the point's settings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["point", "seed", *(column.name for column in fields(Row))])
    for point in points:
        for one in point.runs:
            writer.writerows([point.label, one.seed, *astuple(row)] for row in one.run.rows)
    return text.getvalue()


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
