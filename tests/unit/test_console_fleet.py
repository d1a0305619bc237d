"""The console's picture of a fleet: what changes and what happens, from answers that a test lays down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concord.console.curve import Curve
from concord.console.feed import Feed
from concord.console.fleet_view import Answer, FleetView
from concord.console.happenings import Kind
from concord.console.reading import EDGE_COLUMNS, EdgeView, SiteReport, State, read_report

TRAINING = SiteReport(
    State.TRAINING, "digits", round=10, step=160, value=0.5, incarnation=1, reported_at=1.0, edges={"N2": EdgeView()}
)


def looks(view: FleetView, *answers: tuple[float, Answer]) -> list[tuple[str, str]]:
    """What happened at N1 while it gave these answers at these times: (kind, text)."""
    told: list[tuple[str, str]] = []
    for at, one in answers:
        change: Mapping[str, Any] = view.take({"N1": one}, at) or {}
        told += [(event["kind"], event["text"]) for event in change.get("events", ())]
    return told


def later(rounds: int, **changes: object) -> SiteReport:
    return replace(TRAINING, round=10 + rounds, step=160 + 16 * rounds, reported_at=1.0 + rounds, **changes)


def test_a_site_is_silent_once_it_missed_two_questions_and_two_seconds() -> None:
    view = FleetView(["N1"])
    told = looks(view, (0, TRAINING), (1, "refused"), (1.9, "refused"), (2.1, "refused"), (5, "refused"), (7, later(1)))
    assert told == [(Kind.SILENT, "does not answer: refused"), (Kind.RETURNED, "answers again after 7 s")]


def test_one_question_without_an_answer_is_no_silence_however_long_ago_the_last_was() -> None:
    assert looks(FleetView(["N1"]), (0, TRAINING), (30, "refused"), (31, later(9))) == []


def test_a_site_that_never_answered_is_waited_for() -> None:
    view = FleetView(["N1"])
    assert looks(view, (0, "refused"), (10, "refused")) == []
    assert shown(view)["state"] == "waiting"
    assert shown(view)["problem"] == "refused"


def test_what_a_site_tells_of_itself_becomes_events() -> None:
    view = FleetView(["N1"])
    told = looks(
        view,
        (0, TRAINING),
        (1, later(1, incarnation=2)),
        (2, later(2, incarnation=2, rollbacks=1)),
        (3, later(3, incarnation=2, rollbacks=1, edges={"N3": EdgeView()})),
        (4, later(4, incarnation=2, rollbacks=1, edges={"N3": EdgeView()}, mailbox="gone", state=State.FINISHED)),
    )
    assert [kind for kind, _ in told] == [
        Kind.RESTARTED, Kind.ROLLED_BACK, Kind.MEMBERS, Kind.MEMBERS, Kind.MAILBOX, Kind.FINISHED,
    ]  # fmt: skip
    assert told[0][1] == "went on from its checkpoint at round 11, life 2"
    assert told[2][1] == "exchanges with N3 now"


def test_refusals_are_told_in_batches() -> None:
    view = FleetView(["N1"])
    told = looks(view, (0, TRAINING), *((1 + i, later(1 + i, refused=1 + i)) for i in range(20)))
    assert told == [(Kind.REFUSED, "refused 1 update"), (Kind.REFUSED, "refused 10 updates")]


def test_refusals_from_before_the_console_are_not_news() -> None:
    assert looks(FleetView(["N1"]), (0, later(0, refused=7)), (1, later(1, refused=7))) == []


def test_a_trainer_that_reports_nothing_new_is_stalled() -> None:
    view = FleetView(["N1"])
    told = looks(view, (0, TRAINING), (29, TRAINING), (31, TRAINING), (40, TRAINING), (41, later(1)))
    assert told == [(Kind.STALLED, "answers, but its trainer has reported nothing for 31 s")]
    assert shown(view)["state"] == "training"


def shown(view: FleetView) -> Mapping[str, Any]:
    picture: Mapping[str, Any] = view.picture(0.0)
    found: Mapping[str, Any] = picture["sites"]["N1"]
    return found


def test_only_what_changed_is_sent() -> None:
    view = FleetView(["N1"])
    view.take({"N1": TRAINING}, 0.0)
    assert view.take({"N1": TRAINING}, 0.5) is None
    change: Mapping[str, Any] = view.take({"N1": replace(TRAINING, round=11)}, 1.0) or {}
    assert change["sites"] == {"N1": {"round": 11}}


rounds = st.integers(0, 50)
answers = st.one_of(
    st.just("no answer"),
    st.builds(
        lambda done, value, life, sent: later(done, value=value, incarnation=life, edges={"N2": EdgeView(sent=sent)}),
        rounds,
        st.one_of(st.none(), st.floats(0, 1)),
        st.integers(1, 3),
        rounds,
    ),
)


@given(st.lists(st.dictionaries(st.sampled_from(["N1", "N2", "N3"]), answers, min_size=1), max_size=12))
def test_snapshot_and_changes_add_up_to_the_picture(history: list[dict[str, Answer]]) -> None:
    """What a browser has that came at the beginning is what one gets that comes at the end."""
    view = FleetView(["N1", "N2", "N3"])
    browser: dict[str, Any] = view.picture(0.0)
    browser = json.loads(json.dumps(browser))
    for at, given_answers in enumerate(history):
        change: Any = view.take(given_answers, float(at)) or {"sites": {}, "points": {}, "events": []}
        for name, fields in json.loads(json.dumps(change["sites"])).items():
            browser["sites"][name].update(fields)
        for name, point in change["points"].items():
            browser["points"][name].append(point)
        browser["events"] += change["events"]
    picture: dict[str, Any] = view.picture(0.0)
    for key in ("sites", "points", "events"):
        assert browser[key] == json.loads(json.dumps(picture[key]))


def test_a_curve_stays_bounded_and_keeps_its_ends() -> None:
    curve = Curve(limit=50)
    for i in range(1000):
        curve.add(float(i), i, i / 1000)
    assert len(curve.points) <= 50
    assert curve.points[0] == (0.0, 0, 0.0)
    assert curve.points[-1] == (999.0, 999, 0.999)


def test_a_value_that_stands_still_gets_a_point_now_and_then() -> None:
    curve = Curve(limit=50)
    assert [bool(curve.add(at, 1, 0.5)) for at in (0.0, 1.0, 4.9, 5.0, 6.0)] == [True, False, False, True, False]


def test_who_missed_a_few_messages_gets_those_and_who_missed_more_the_whole_picture() -> None:
    feed = Feed("a1", kept=3)
    ids = [feed.publish("delta", str(i)).id for i in range(5)]
    assert ids[0] == "a1-1"
    assert [message.data for message in feed.after(3) or ()] == ["3", "4"]
    assert feed.after(5) == []
    assert feed.after(1) is None
    assert feed.after(2) is not None
    known = {"a1-4": 4, "a1-6": None, "b2-4": None, "a1-x": None, "": None}
    assert {id: feed.number_of(id) for id in known} == known
    assert feed.publish("delta", "{}").to_sse() == "id: a1-6\nevent: delta\ndata: {}\n\n"


def test_a_status_is_read_with_the_edges_of_its_exchange() -> None:
    report = read_report(
        {
            "metric": "auroc",
            "rounds": 300,
            "progress": {
                "phase": "training",
                "metrics": {"auroc": 0.123456789},
                "edges": {"N2": {"sent": 5, "received": 4, "staleness_seconds": 0.25}},
            },
            "exchange": {"unproven": 1, "edges": {"N2": {"refused": {"stale": 2, "torn": 1}}}},
        }
    )
    assert (report.metric, report.value, report.rounds, report.refused) == ("auroc", 0.123457, 300, 4)
    assert (report.edges or {})["N2"] == EdgeView(sent=5, received=4, staleness_seconds=0.25, refused=3)
    assert EDGE_COLUMNS[:3] == ("epoch", "sent", "received")


@pytest.mark.parametrize("document", [None, [], "x", {}, {"progress": 3}, {"progress": {"phase": "asleep"}}])
def test_what_is_no_status_is_a_clear_error(document: object) -> None:
    with pytest.raises(ValueError, match=r"has not reported|phase that is not known"):
        read_report(document)


words = st.text("aé-", max_size=130)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words)
trees = (
    leaves | st.lists(leaves, max_size=2) | st.dictionaries(words, leaves | st.dictionaries(words, leaves, max_size=2))
)
progress = dict.fromkeys(("round", "edges", "metrics", "loss"), trees)
others = dict.fromkeys(("rounds", "classes", "exchange", "federation", "reported_at"), trees)


@given(
    st.fixed_dictionaries(
        {"progress": st.fixed_dictionaries({"phase": st.just("training")}, optional=progress)}, optional=others
    )
)
def test_any_document_becomes_a_picture_that_is_json(document: dict[str, object]) -> None:
    view = FleetView(["N1"])
    view.take({"N1": read_report(document)}, 0.0)
    assert json.loads(json.dumps(view.picture(0.0), allow_nan=False))["sites"]["N1"]["state"] == "training"
