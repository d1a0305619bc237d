"""From finished simulations of hospitals to what their picture shows. Must not draw."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from concord.errors import JobError
from concord.figures.hospitals import CHANCE, Comparison, Finding, Hospital
from concord.learning.partition import ClassCounts
from concord.simulate.report import Point

_PREFIX = "auc_"  # of the metric of one finding


def compare(new: Point, conventional: Point, held: Sequence[ClassCounts], findings: Sequence[str]) -> Comparison:
    """Two ways of learning on the same hospitals, which hold `held`, with the counts in the order of `findings`.

    Hospitals are those of the first seed, since every seed deals out anew; findings are averaged over all seeds.
    JobError without training on all data in one place.
    """
    references = [one.reference for one in new.runs if one.reference is not None]
    if not references:
        raise JobError("the picture of hospitals needs the reference: training on all data in one place")
    names = [f"{_PREFIX}{name}" for name in findings]
    return Comparison(
        hospitals=[_hospital(row, findings, new, conventional) for row in held],
        findings=[
            Finding(
                finding,
                sum(row.counts[index] for row in held),
                _mean(new, names[index]),
                _mean(conventional, names[index]),
                fmean(one.metrics[names[index]] for one in references),
            )
            for index, finding in enumerate(findings)
        ],
        pooled=references[0].final,
    )


def _hospital(row: ClassCounts, findings: Sequence[str], new: Point, conventional: Point) -> Hospital:
    commonest = sorted(row.held, key=lambda index: -row.counts[index])
    return Hospital(
        name=row.site,
        images=row.total,
        findings=[findings[index] for index in commonest],
        new=_headline(new, row.site),
        conventional=_headline(conventional, row.site),
    )


def _headline(point: Point, site: str) -> float:
    """The first metric of a site at the end of the first seed; chance if it never took part."""
    return next(iter(point.runs[0].run.metrics.get(site, {"": CHANCE}).values()))


def _mean(point: Point, metric: str) -> float:
    return fmean(metrics[metric] for one in point.runs for metrics in one.run.metrics.values())
