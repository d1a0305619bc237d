"""A candidate beside the model in service: what is compared, what is dropped, and that nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from concord.serving.predictor import Predictor, ServedModel
from concord.serving.shadow import MOST_ROWS, Shadow
from served_models import CLASSES, build_model, marked_snapshot, new_predictor, snapshot_of


@pytest.fixture
def shadow() -> Iterator[Shadow]:
    made = Shadow(share=1.0)
    yield made
    made.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def served_by(shadow: Shadow, version: int) -> Predictor:
    predictor = new_predictor()
    predictor.observer = shadow.offer
    predictor.swap(marked_snapshot(version))
    return predictor


def test_the_same_model_agrees_and_another_does_not(shadow: Shadow) -> None:
    predictor = served_by(shadow, 1)
    shadow.start()
    for version, differs in ((2, 0.0), (-3, 1.0)):  # the marked model of a negative mark answers the other way round
        snapshot = marked_snapshot(version)
        shadow.follow(predictor.prepare(snapshot), 1, frozenset({1, version}))
        answers = predictor.predict(torch.zeros(4, 4))
        until(lambda version=version: shadow.state.done[version].rows == 4)  # type: ignore[misc]
        expected = predictor.prepare(snapshot).predict(torch.zeros(4, 4)).probabilities
        report = shadow.state.done[version].report()
        assert report["different_winners"] == differs
        assert expected is not None
        assert answers.probabilities is not None
        assert report["mean_abs_difference"] == pytest.approx(float((answers.probabilities - expected).abs().mean()))
    assert (shadow.state.compared, shadow.state.rows, shadow.state.different_winners) == (2, 8, 4)


def test_outputs_are_compared_where_there_are_no_classes(shadow: Shadow) -> None:
    predictor = Predictor(build_model, (), (4,), "regression")
    predictor.observer = shadow.offer
    predictor.swap(marked_snapshot(1))
    shadow.follow(predictor.prepare(marked_snapshot(4)), 1, frozenset({1, 4}))
    shadow.start()
    predictor.predict(torch.zeros(2, 4))
    until(lambda: shadow.state.compared == 1)
    assert shadow.state.done[4].report()["mean_abs_difference"] == pytest.approx(2.0)  # 3, 0 and 3


def test_only_its_share_and_only_the_first_rows_are_compared() -> None:
    shadow = Shadow(share=0.25)
    predictor = served_by(shadow, 1)
    shadow.follow(predictor.prepare(marked_snapshot(2)), 1, frozenset({1, 2}))
    shadow.start()
    for _ in range(20):
        predictor.predict(torch.zeros(MOST_ROWS + 10, 4))
    until(lambda: shadow.state.compared == 5)
    assert shadow.state.rows == 5 * MOST_ROWS
    shadow.stop()
    assert shadow.state.compared == 5


def test_what_waits_is_bounded_in_bytes(shadow: Shadow) -> None:
    candidate = ServedModel("pictures", nn.Flatten(), (), (3, 300, 300), (270_000,), marked_snapshot(2), 0.0)
    shadow.follow(candidate, 1, frozenset({1, 2}))
    served = replace(candidate, snapshot=marked_snapshot(1), observer=shadow.offer)
    shadow.start()
    served.predict(torch.zeros(5, 3, 300, 300))
    until(lambda: shadow.state.compared == 1)
    assert shadow.state.rows == 1


def test_without_a_candidate_and_for_other_versions_nothing_is_compared(shadow: Shadow) -> None:
    predictor = served_by(shadow, 1)
    shadow.start()
    predictor.predict(torch.zeros(1, 4))
    shadow.follow(predictor.prepare(marked_snapshot(3)), 2, frozenset({1, 2, 3}))  # compared with 2 from now on
    predictor.predict(torch.zeros(1, 4))
    predictor.prepare(marked_snapshot(2)).predict(torch.zeros(1, 4))  # asked for by number: not in service
    predictor.swap(marked_snapshot(2))
    predictor.predict(torch.zeros(1, 4))
    until(lambda: shadow.state.compared == 1)
    assert shadow.state.done[3].requests == 1


def test_results_stay_as_long_as_their_version_is_on_the_shelf_and_service_is_the_same(shadow: Shadow) -> None:
    predictor = new_predictor()
    candidate = predictor.prepare(marked_snapshot(2))
    shadow.follow(candidate, 1, frozenset({1, 2}))
    first = shadow.state.current
    shadow.follow(candidate, 1, frozenset({1, 2}))
    assert shadow.state.current is first
    shadow.follow(candidate, 0, frozenset({0, 2}))
    assert shadow.state.current is not first
    shadow.follow(None, 2, frozenset({2, 3}))
    assert (shadow.state.current, list(shadow.state.done)) == (None, [2])
    shadow.follow(None, 4, frozenset({4}))
    assert shadow.state.done == {}


class Slow(nn.Module):
    """Answers only when it may."""

    def __init__(self, may: threading.Event) -> None:
        super().__init__()
        self._may = may

    def forward(self, inputs: Tensor) -> Tensor:
        self._may.wait()
        return torch.zeros(len(inputs), 3)


def slow_candidate(may: threading.Event) -> ServedModel:
    return ServedModel("animals", Slow(may), CLASSES, (4,), (3,), marked_snapshot(2), 0.0)


def test_a_slow_candidate_costs_dropped_comparisons_and_no_time() -> None:
    may, shadow = threading.Event(), Shadow(share=1.0, depth=4)
    predictor = served_by(shadow, 1)
    shadow.follow(slow_candidate(may), 1, frozenset({1, 2}))
    shadow.start()
    for _ in range(100):
        predictor.predict(torch.zeros(1, 4))  # would never return if it waited
    assert shadow.state.compared == 0
    assert 94 <= shadow.state.dropped <= 96  # four wait, one is worked on, and one more may have been taken
    may.set()
    until(lambda: shadow.state.compared + shadow.state.dropped == 100)
    shadow.stop()


def test_a_candidate_that_fails_is_counted(shadow: Shadow) -> None:
    predictor = served_by(shadow, 1)
    broken = ServedModel("animals", nn.Linear(5, 3), CLASSES, (4,), (3,), snapshot_of(build_model(), 2), 0.0)
    shadow.follow(broken, 1, frozenset({1, 2}))
    shadow.start()
    predictor.predict(torch.zeros(1, 4))
    until(lambda: shadow.state.failed == 1)
    assert shadow.state.compared == 0
