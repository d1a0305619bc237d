"""A run to hold another against: its curves by site, read from what Concord's commands wrote. Pure.

The format of its own, which the console writes and `concord demo` too, is one JSON object:

    format      "concord-run/1"
    name        what the legend calls it
    algorithm   how it learned
    metric      the name of the values
    sites       per site, a list of [seconds, round, value]
    pooled      training on all data in one place, a list of [round, value]; may be missing

`report.json` of `concord demo` and the results of `concord simulate` are read as well; they hold ends only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from concord.console.curve import Point
from concord.errors import JobError

FORMAT = "concord-run/1"


@dataclass(frozen=True, slots=True)
class Recording:
    """`sites` are curves; where only ends are known, `ends_only` says so and each curve is one point at round 0.

    `mean` stands for sites that have no curve of their own. `pooled` is (round, value), one point for an end.
    """

    name: str
    algorithm: str = ""
    metric: str = "accuracy"
    sites: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    pooled: Sequence[tuple[int, float]] = ()
    mean: float | None = None
    ends_only: bool = False

    def to_json(self) -> str:
        """The format above."""
        body = {
            "format": FORMAT,
            "name": self.name,
            "algorithm": self.algorithm,
            "metric": self.metric,
            "sites": {site: [[round(at, 3), done, value] for at, done, value in c] for site, c in self.sites.items()},
            "pooled": [list(point) for point in self.pooled],
        }
        return json.dumps(body, separators=(",", ":")) + "\n"


def read_recording(text: str, source: str, point: int = 0) -> Recording:
    """A recording from any of the formats; of a sweep's results, the `point` that is meant.

    JobError says what is wrong with `source` and what would be right.
    """
    try:
        found = json.loads(text)
        if isinstance(found, dict) and found.get("format") == FORMAT:
            return _own(found)
        if isinstance(found, dict) and "results" in found:
            return _demo(found)
        if isinstance(found, dict) and "points" in found:
            return _simulated(found, point)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise JobError(f"{source} cannot be read as a reference run: {type(error).__name__}: {error}") from error
    raise JobError(
        f"{source} is not a reference run; it should be one that `concord demo`, `concord simulate` or the console's "
        f"'Save this run' wrote"
    )


def _own(found: Mapping[str, object]) -> Recording:
    sites = found["sites"]
    if not isinstance(sites, Mapping):
        raise ValueError("sites should be an object")
    return Recording(
        name=str(found["name"]),
        algorithm=str(found.get("algorithm", "")),
        metric=str(found.get("metric", "accuracy")),
        sites={str(site): [_point(*row) for row in rows] for site, rows in sites.items()},
        pooled=[(int(_value(done)), _value(value)) for done, value in _rows(found.get("pooled", ()))],
    )


def _demo(found: Mapping[str, object]) -> Recording:
    results = _object(found["results"])
    pooled = _object(results["global"])
    gossip = _object(results["gossip"])
    return Recording(
        name="gossip averaging",
        algorithm="gossip",
        pooled=[(0, _value(pooled["accuracy"]))],
        mean=_value(gossip["accuracy_mean"]),
        ends_only=True,
    )


def _simulated(found: Mapping[str, object], index: int) -> Recording:
    points = _rows(found["points"])
    if not 0 <= index < len(points):
        raise ValueError(f"it has {len(points)} points, and number {index} is asked for")
    point = _object(points[index])
    seed = _object(_rows(point["seeds"])[0])
    reference = seed.get("reference")
    return Recording(
        name=str(point["algorithm"]),
        algorithm=str(point["algorithm"]),
        metric=str(found.get("metric", "accuracy")),
        sites={name: [_point(0, 0, _object(end)["metric"])] for name, end in _object(seed["sites"]).items()},
        pooled=[(0, _value(_object(reference)["final"]))] if reference else (),
        ends_only=True,
    )


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"an object is expected, not {str(value)[:40]!r}")
    return value


def _rows(value: object) -> Sequence[Sequence[object]]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"a list is expected, not {str(value)[:40]!r}")
    return value


def _point(at: object, done: object, value: object) -> Point:
    return _value(at), int(_value(done)), _value(value)


def _value(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not isfinite(number):
        raise ValueError("a value is not finite")
    return number
