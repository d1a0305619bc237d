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
class SeedRun:
    """One run with one seed; `reference` is None if none was asked for."""

    seed: int
    run: Run
    reference: Reference | None = None


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
    """The metric over virtual time, over all sites and seeds of a point: mean, least and greatest."""

    seconds: tuple[float, ...]
    mean: tuple[float, ...]
    least: tuple[float, ...]
    greatest: tuple[float, ...]


def band(point: Point) -> Band:
    """What a curve of the point shows, at every time that something was measured at."""
    values: dict[float, list[float]] = {}
    for one in point.runs:
        for row in one.run.rows:
            values.setdefault(row.seconds, []).append(row.metric)
    times = sorted(values)
    return Band(
        tuple(times),
        tuple(fmean(values[at]) for at in times),
        tuple(min(values[at]) for at in times),
        tuple(max(values[at]) for at in times),
    )


def to_json(header: Mapping[str, object], points: Sequence[Point]) -> str:
    """All results but the single rows, which are in the CSV; `header` says what was run."""
    described = [
        {
            "settings": dict(point.settings),
            "algorithm": point.algorithm,
            "summary": asdict(summarise(point)),
            "seeds": [_seed(one) for one in point.runs],
        }
        for point in points
    ]
    return json.dumps({**header, "points": described}, indent=2) + "\n"


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
