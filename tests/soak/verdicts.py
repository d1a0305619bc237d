"""From measured series to what is flat and what grows, and a picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soak.measure import Series
from soak.slopes import slope

LIMITS = {"rss": 1.0, "anonymous": 1.0, "redis": 1.0, "files": 2.0, "latency": 20.0}
"""Most growth per hour: megabytes of a process, with and without pages of files, and of a Redis; file descriptors;
milliseconds of an answer."""
LIVED = 0.5
"""A process is judged if it lived for this share of the time after warm-up: a young one still grows into itself."""


def judge(series: Mapping[str, Series], warm_up: float, begin: float, end: float) -> list[dict[str, Any]]:
    """One row for each series that is long enough."""
    rows = []
    for name, (times, values) in sorted(series.items()):
        kept = [(at, value) for at, value in zip(times, values, strict=True) if at >= max(begin, times[0]) + warm_up]
        if not kept or kept[-1][0] - kept[0][0] < LIVED * (end - begin - warm_up):
            continue
        found = slope(*map(list, zip(*kept, strict=True)))
        if found is not None:
            limit = LIMITS[name.split()[0]]
            row = {"series": name, "per_hour": found.per_hour, "low": found.low, "high": found.high, "limit": limit}
            rows.append(row | {"verdict": found.verdict(limit), "last": kept[-1][1]})
    return rows


def draw(series: Mapping[str, Series], path: Path) -> None:
    """All series by what they measure, over minutes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(LIMITS), 1, figsize=(9, 11), sharex=True)
    first = min(times[0] for times, _ in series.values())
    units = {
        "rss": "MB resident",
        "anonymous": "MB anonymous",
        "redis": "MB in Redis",
        "files": "file descriptors",
        "latency": "ms to answer",
    }
    for axis, kind in zip(axes, LIMITS, strict=True):
        for name, (times, values) in series.items():
            if name.split()[0] == kind:
                axis.plot([(at - first) / 60 for at in times], values, linewidth=0.8)
        axis.set_ylabel(units[kind])
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
