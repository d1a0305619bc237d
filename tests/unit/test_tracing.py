"""Spans of one update from processes that know nothing of each other, and of predictions in their callers' traces."""

from __future__ import annotations

import sys

import pytest

from concord.apps.traces import ENDPOINTS, RATIO, open_tracing
from concord.errors import EnvironmentProblem
from concord.site.journey import Journey
from concord.telemetry.tracing import STEPS, Span, Tracing
from concord.wire.messages import Stamp

UPDATE = "federation/N1/N2/1.2.{}"


def tracing(ratio: float = 1.0) -> tuple[Tracing, list[Span]]:
    spans: list[Span] = []
    return Tracing(spans.append, lambda: None, ratio, clock=lambda: 5_000_000_000), spans


def test_four_processes_draw_one_trace() -> None:
    told = []
    for step in STEPS:
        one, spans = tracing()
        one.update(step, UPDATE.format(3), "N2", 0.5)
        told += spans
    assert len({span.trace for span in told}) == 1
    assert [span.parent for span in told] == [None, *(span.id for span in told[:-1])]
    assert [span.name for span in told] == [f"update {step}" for step in STEPS]
    assert (told[0].began, told[0].ended) == (4_500_000_000, 5_000_000_000)


def test_updates_have_traces_of_their_own() -> None:
    one, spans = tracing()
    for number in range(50):
        one.update("stored", UPDATE.format(number), "N2", 0.0)
    assert len({span.trace for span in spans}) == len({span.id for span in spans}) == 50


def test_all_keep_the_same_share_of_traces() -> None:
    one, sent = tracing(0.25)
    other, got = tracing(0.25)
    for number in range(2000):
        one.update("delivered", UPDATE.format(number), "N2", 0.0)
        other.update("stored", UPDATE.format(number), "N1", 0.0)
    assert [span.trace for span in sent] == [span.trace for span in got]
    assert 400 <= len(sent) <= 600
    kept = {span.attributes["concord.update"] for span in sent}
    for number in range(100):
        update = UPDATE.format(number)
        assert one.traceparent(update).endswith("-01" if update in kept else "-00")


def test_none_and_all_are_kept_if_asked() -> None:
    for ratio, count in ((0.0, 0), (1.0, 300)):
        one, spans = tracing(ratio)
        for number in range(300):
            one.update("stored", UPDATE.format(number), "N2", 0.0)
        assert len(spans) == count


def test_the_header_names_the_span_of_the_delivery() -> None:
    one, spans = tracing()
    one.update("delivered", UPDATE.format(3), "N2", 0.0)
    version, trace, span, flags = one.traceparent(UPDATE.format(3)).split("-")
    assert (version, int(trace, 16), int(span, 16), flags) == ("00", spans[0].trace, spans[0].id, "01")


def test_without_a_tracer_no_header_goes_with_an_update() -> None:
    one, _ = tracing()
    assert Journey("federation", "N1").headers("N2", Stamp(1, 2, 3)) == {}
    traced = Journey("federation", "N1", one).headers("N2", Stamp(1, 2, 3))
    assert traced == {"traceparent": one.traceparent(UPDATE.format(3))}


def test_a_prediction_is_part_of_its_callers_trace() -> None:
    one, spans = tracing(0.0)
    one.prediction("predict", 200, 0.001, f"00-{7:032x}-{9:016x}-01")
    one.prediction("predict", 200, 0.001, f"00-{7:032x}-{9:016x}-00")
    one.prediction("predict", 200, 0.001, "nonsense")
    assert [(span.trace, span.parent, span.name) for span in spans] == [(7, 9, "predict")]


def test_off_unless_an_endpoint_is_named() -> None:
    assert open_tracing("trainer", "N1", {}) is None
    assert open_tracing("trainer", "N1", {RATIO: "0.5", ENDPOINTS[0]: ""}) is None


@pytest.mark.parametrize("ratio", ["often", "1.5", "-0.1", "nan"])
def test_a_ratio_that_is_none_is_told(ratio: str) -> None:
    with pytest.raises(EnvironmentProblem, match=rf"{RATIO} is '{ratio}'; it should be the share of traces"):
        open_tracing("trainer", "N1", {ENDPOINTS[1]: "http://127.0.0.1:9", RATIO: ratio})


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "concord.telemetry.otlp", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'concord-edge\[tracing\]', or unset it"):
        open_tracing("trainer", "N1", {ENDPOINTS[1]: "http://127.0.0.1:9"})
