"""What `make peers` makes of the marks that its runs leave."""

from __future__ import annotations

import pytest

from benchmarks.peers.marks import Course, Mark, Summary, course, read_marks, summarise, verdicts


def test_marks_are_read_line_by_line() -> None:
    text = '{"at": 1.5, "accuracy": 0.25}\n{"at": 2.0, "accuracy": 0.5}\n'
    assert read_marks(text) == [Mark(1.5, 0.25), Mark(2.0, 0.5)]


def test_a_round_is_known_when_the_last_of_its_models_is() -> None:
    marks = [Mark(at, accuracy) for at, accuracy in ((11, 0), (12, 0), (13, 0.2), (14, 0.4), (15, 0.5), (17, 0.7))]
    assert course(marks, models=2, rounds=2, began=10, ended=20, load=0.5) == Course(
        (4, 7), 10, pytest.approx(0.6), 0.5
    )


@pytest.mark.parametrize("count", [0, 5, 7])
def test_another_number_of_marks_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} marks"):
        course([Mark(1.0, 0.5)] * count, models=2, rounds=2, began=0, ended=2, load=0)


def test_the_first_round_is_no_warm_round_and_medians_count() -> None:
    runs = [Course((5, 6, 8), 9, 0.5, 0), Course((3, 7, 10), 11, 0.7, 0), Course((4, 5, 8), 20, 0.6, 0)]
    assert summarise(runs, megabytes=100) == Summary(4, 2.5, 11, 100, 0.6)


def test_a_target_is_met_from_its_ratio_on() -> None:
    ours, theirs = Summary(1, 1, 2, 100, 0.5), Summary(20, 9.9, 30, 600, 0.5)
    assert [(one.ratio, one.met) for one in verdicts(ours, theirs)] == [(20, True), (9.9, False), (6, True)]
