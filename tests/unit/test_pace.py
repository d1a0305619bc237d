"""What a batch is expected to take follows what batches took."""

from __future__ import annotations

from dataclasses import replace

import pytest

from concord.serving.pace import Pace
from served_models import marked_snapshot, new_predictor

SERVED = replace(new_predictor().swap(marked_snapshot(1)), seconds=0.001)


def test_before_the_first_batch_rows_are_as_slow_as_at_warm_up() -> None:
    assert Pace().expect(SERVED, 8) == pytest.approx(0.008)


def test_batches_teach_what_a_row_more_costs() -> None:
    pace = Pace()
    for _ in range(30):
        pace.learn(SERVED, 1, 0.0005)
        pace.learn(SERVED, 11, 0.0015)
    assert pace.expect(SERVED, 1) == pytest.approx(0.0005, rel=0.01)
    assert pace.expect(SERVED, 21) == pytest.approx(0.0025, rel=0.01)


def test_one_batch_that_was_disturbed_changes_little() -> None:
    pace = Pace()
    for _ in range(30):
        pace.learn(SERVED, 11, 0.0015)
    before = pace.expect(SERVED, 11)
    pace.learn(SERVED, 11, 0.03)
    assert before < pace.expect(SERVED, 11) < 2 * before


def test_a_model_that_became_slower_is_noticed() -> None:
    pace = Pace()
    for _ in range(300):
        pace.learn(SERVED, 1, 0.005)
    assert pace.expect(SERVED, 1) == pytest.approx(0.005, rel=0.02)
