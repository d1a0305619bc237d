"""The whole fleet as the console sees it: takes in answers, gives the first picture and then what changed. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from statistics import median

from concord.console.curve import Curve, Point
from concord.console.happenings import REFUSALS_EVERY, Happening, Kind, compare
from concord.console.reading import EDGE_COLUMNS, SiteReport, State

Answer = SiteReport | str
"""What a site said, or one sentence on why it said nothing."""
Json = dict[str, object]

PATIENCE = 2.0
"""Seconds without an answer after which a site is silent, if it was asked at least twice."""
STILL = 30.0
"""Seconds without a new report of its trainer after which a site that should train is stalled."""
EVENTS_KEPT = 200
_POINTS = 12000
"""Points of all curves together: what a browser that comes late has to fetch."""
_FASTEST_UNIT = 0.5


@dataclass(slots=True)
class _Site:
    curve: Curve
    report: SiteReport = field(default_factory=lambda: SiteReport(State.WAITING))
    state: State = State.WAITING
    problem: str | None = None
    answered_at: float | None = None
    misses: int = 0
    moved_at: float = 0.0
    """When its trainer's report was last a new one."""
    round_seconds: float | None = None
    refusals_told: int = 0
    refusals_told_at: float = float("-inf")
    shown: Json = field(default_factory=dict)


class FleetView:
    """Sites by name, from their answers. Times are in seconds since the console began."""

    def __init__(self, sites: Iterable[str], patience: float = PATIENCE) -> None:
        names = list(sites)
        limit = max(40, min(600, _POINTS // len(names)))
        self._sites = {name: _Site(Curve(limit)) for name in names}
        self._patience = patience
        self._events: deque[Happening] = deque(maxlen=EVENTS_KEPT)
        for site in self._sites.values():
            site.shown = _show(site)

    def take(self, answers: Mapping[str, Answer], at: float) -> Json | None:
        """What changed with these answers; None if nothing did."""
        changes: Json = {}
        points: Json = {}
        events: list[Happening] = []
        for name, answer in answers.items():
            site = self._sites[name]
            heard, point = self._hear(name, site, answer, at)
            events += heard
            if point is not None:
                points[name] = _short(point)
            if changed := _difference(site):
                changes[name] = changed
        self._events.extend(events)
        if not (changes or points or events):
            return None
        return {
            "at": round(at, 2),
            "unit": self.unit,
            "sites": changes,
            "points": points,
            "events": [event.to_dict() for event in events],
        }

    def picture(self, at: float) -> Json:
        """Everything, for a browser that comes now."""
        return {
            "at": round(at, 2),
            "unit": self.unit,
            "edge_columns": list(EDGE_COLUMNS),
            "sites": {name: site.shown for name, site in self._sites.items()},
            "points": {name: [_short(point) for point in site.curve.points] for name, site in self._sites.items()},
            "events": [event.to_dict() for event in self._events],
        }

    @property
    def unit(self) -> float:
        """Seconds that a round takes, by the median site and at least half a second: what is stale depends on it."""
        known = [site.round_seconds for site in self._sites.values() if site.round_seconds is not None]
        return float(f"{max(_FASTEST_UNIT, median(known)):.2g}") if known else _FASTEST_UNIT

    @property
    def curves(self) -> dict[str, list[Point]]:
        """Each site's points so far."""
        return {name: list(site.curve.points) for name, site in self._sites.items()}

    @property
    def reports(self) -> dict[str, SiteReport]:
        """What each site said last."""
        return {name: site.report for name, site in self._sites.items()}

    def _hear(self, name: str, site: _Site, answer: Answer, at: float) -> tuple[list[Happening], Point | None]:
        if isinstance(answer, str):
            return [Happening(at, name, kind, text) for kind, text in self._nothing(site, answer, at)], None
        events = [Happening(at, name, kind, text) for kind, text in self._something(site, answer, at)]
        if answer.value is None or site.state is State.STALLED:
            return events, None
        return events, site.curve.add(at, answer.round, answer.value)

    def _nothing(self, site: _Site, why: str, at: float) -> Iterable[tuple[Kind, str]]:
        site.problem = why
        site.misses += 1
        since = site.answered_at
        if since is None or site.state is State.SILENT or site.misses < 2 or at - since < self._patience:
            return
        site.state = State.SILENT
        yield Kind.SILENT, f"does not answer: {why}"

    def _something(self, site: _Site, report: SiteReport, at: float) -> Iterable[tuple[Kind, str]]:
        before, first = site.report, site.answered_at is None
        if site.state is State.SILENT and site.answered_at is not None:
            yield Kind.RETURNED, f"answers again after {at - site.answered_at:.0f} s"
        if first or report.reported_at != before.reported_at or report.step != before.step:
            _time_rounds(site, report, at)
            site.moved_at = at
        if first:
            site.refusals_told = report.refused
        else:
            yield from compare(before, report)
        site.report, site.answered_at, site.problem, site.misses = report, at, None, 0
        yield from _judge(site, at)
        yield from _refusals(site, at)


def _judge(site: _Site, at: float) -> Iterable[tuple[Kind, str]]:
    """Whether it trains as it says."""
    still = at - site.moved_at
    if site.report.state is State.TRAINING and still > max(STILL, 5 * (site.round_seconds or 0.0)):
        if site.state is not State.STALLED:
            yield Kind.STALLED, f"answers, but its trainer has reported nothing for {still:.0f} s"
        site.state = State.STALLED
    else:
        site.state = site.report.state


def _refusals(site: _Site, at: float) -> Iterable[tuple[Kind, str]]:
    count = site.report.refused - site.refusals_told
    if count < 0:  # its exchange was started anew, and counts from zero
        site.refusals_told = site.report.refused
    elif count > 0 and at - site.refusals_told_at >= REFUSALS_EVERY:
        site.refusals_told, site.refusals_told_at = site.report.refused, at
        yield Kind.REFUSED, f"refused {count} update{'s' if count > 1 else ''}"


def _time_rounds(site: _Site, report: SiteReport, at: float) -> None:
    """Seconds a round takes, smoothed."""
    done = report.round - site.report.round
    if site.answered_at is None or done <= 0 or at <= site.moved_at:
        return
    seconds = (at - site.moved_at) / done
    site.round_seconds = seconds if site.round_seconds is None else 0.8 * site.round_seconds + 0.2 * seconds


_SHOWN = tuple(one.name for one in fields(SiteReport) if one.name not in ("state", "edges", "reported_at"))


def _show(site: _Site) -> Json:
    shown: Json = {name: getattr(site.report, name) for name in _SHOWN}
    shown["state"] = site.state.value
    shown["problem"] = site.problem
    shown["silent_since"] = site.answered_at if site.state is State.SILENT else None
    shown["edges"] = {name: edge.to_row() for name, edge in (site.report.edges or {}).items()}
    return shown


def _difference(site: _Site) -> Json:
    before, site.shown = site.shown, _show(site)
    return {key: value for key, value in site.shown.items() if value != before.get(key)}


def _short(point: Point) -> list[float]:
    at, done, value = point
    return [round(at, 2), done, value]
