"""Which version is served: following, the gate, what people have marked, and what cannot be loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concord.serving.choice import Gate, Place, candidate_of, choose, place_of, version_before
from concord.site.ports import Marks, Snapshot, Stock

GATE = Gate("accuracy", drop=0.1)
NAN = float("nan")


def snapshot(version: int, accuracy: float | None = 0.5) -> Snapshot:
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return Snapshot(version, version, version, "f00d", metrics, float(version), b"")


def stock(*accuracies: float | None, marks: Marks | None = None) -> Stock:
    """Versions from 1 on."""
    snapshots = tuple(snapshot(version, accuracy) for version, accuracy in enumerate(accuracies, 1))
    return Stock(snapshots, marks or Marks())


def chosen(shelf: Stock, served: int | None, gate: Gate | None = GATE, refused: tuple[int, ...] = ()) -> int | None:
    keys = {shelf.snapshots[version - 1].key for version in refused}
    choice = choose(shelf, shelf.find(served), gate, keys)
    return None if choice is None else choice.version


def test_nothing_is_chosen_from_an_empty_shelf() -> None:
    assert choose(Stock(), None, GATE) is None
    assert choose(Stock(), snapshot(3), GATE) is None


@pytest.mark.parametrize(
    ("accuracies", "served", "expected"),
    [
        ((0.5, 0.6, 0.7), None, 3),
        ((0.5, 0.6, 0.7), 1, 3),
        ((0.5, 0.41), 1, 2),
        ((0.5, 0.39), 1, 1),
        ((0.5, 0.45, 0.3), 1, 2),
        ((0.5, 0.3, 0.45), 1, 3),
        ((0.5, NAN), 1, 1),
        ((0.5, None), 1, 1),
        ((NAN, 0.1), 1, 2),
        ((None, 0.1), 1, 2),
    ],
)
def test_the_newest_that_passes_the_gate_is_followed(
    accuracies: tuple[float | None, ...], served: int | None, expected: int
) -> None:
    assert chosen(stock(*accuracies), served) == expected


def test_without_a_gate_the_newest_is_followed_whatever_it_is_like() -> None:
    assert chosen(stock(0.9, 0.1), 1, gate=None) == 2


def test_where_lower_is_better_a_rise_is_held_back() -> None:
    gate = Gate("accuracy", 0.1, lower_is_better=True)
    assert chosen(stock(0.5, 0.59), 1, gate) == 2
    assert chosen(stock(0.5, 0.61), 1, gate) == 1
    assert "rose by 0.11" in (gate.objection(snapshot(2, 0.61), snapshot(1)) or "")


def test_a_held_version_stays_whatever_is_published() -> None:
    assert chosen(stock(0.5, 0.6, 0.7, marks=Marks(held=1)), 3) == 1
    assert chosen(stock(0.5, 0.6, 0.7, marks=Marks(held=1)), 1) == 1


def test_one_that_was_let_go_is_followed_by_the_newest_that_passes() -> None:
    assert chosen(stock(0.5, 0.6, 0.2), 1) == 2


def test_a_promoted_version_is_served_though_the_gate_would_not_let_it_pass() -> None:
    assert chosen(stock(0.9, 0.1, marks=Marks(promoted=2, floor=2)), 1) == 2


def test_after_a_promotion_only_what_is_published_later_is_followed_and_is_compared_with_it() -> None:
    marks = Marks(promoted=2, floor=3)
    assert chosen(stock(0.9, 0.5, 0.9, marks=marks), 1) == 2
    assert chosen(stock(0.9, 0.5, 0.9, marks=marks), 2) == 2
    assert chosen(stock(0.9, 0.5, 0.9, 0.45, marks=marks), 1) == 4
    assert chosen(stock(0.9, 0.5, 0.9, 0.3, marks=marks), 2) == 2
    assert chosen(stock(0.9, 0.5, 0.9, 0.45, 0.44, marks=marks), 4) == 5


def test_what_cannot_be_loaded_is_passed_over() -> None:
    assert chosen(stock(0.5, 0.6, 0.7), 1, refused=(3,)) == 2
    assert chosen(stock(0.5, 0.6, 0.7, marks=Marks(held=1)), 2, refused=(1,)) is None
    assert chosen(stock(0.5, 0.6, marks=Marks(promoted=2, floor=2)), 1, refused=(2,)) is None


def test_a_shelf_that_started_over_is_followed() -> None:
    assert choose(stock(0.5), snapshot(9), GATE) == snapshot(1)
    assert choose(stock(0.3), snapshot(9), GATE) is None


def test_places_say_why() -> None:
    shelf = stock(0.5, 0.6, 0.55, 0.3, 0.7)
    served, bad = shelf.snapshots[1], shelf.snapshots[4]
    places = [place_of(one, served, GATE, {bad.key})[0] for one in shelf.snapshots]
    assert places == [Place.KEPT, Place.SERVED, Place.CANDIDATE, Place.HELD_BACK, Place.REFUSED]
    assert place_of(shelf.snapshots[3], served, GATE)[1] == "accuracy fell by 0.3, from 0.6 to 0.3; 0.1 is allowed"
    assert place_of(snapshot(1), None, GATE) == (Place.CANDIDATE, "")
    assert place_of(replace(served, created_at=0.0), served, None)[0] is Place.CANDIDATE


def test_the_candidate_is_the_newest_and_a_roll_back_goes_to_the_next_older() -> None:
    shelf = stock(0.5, 0.6, 0.7, 0.8)
    assert candidate_of(shelf, snapshot(2)) == snapshot(4, 0.8)
    assert candidate_of(shelf, snapshot(2), {snapshot(4).key}) == snapshot(3, 0.7)
    assert candidate_of(shelf, snapshot(4)) is None
    assert version_before(shelf, snapshot(3)) == 2
    assert version_before(shelf, snapshot(1)) is None


ACCURACY = st.one_of(st.none(), st.just(NAN), st.floats(0, 1))


@given(st.lists(ACCURACY, min_size=1, max_size=6), st.integers(1, 6))
def test_following_never_goes_back_nor_to_something_the_gate_objects_to(
    accuracies: list[float | None], at: int
) -> None:
    shelf = stock(*accuracies)
    served = shelf.snapshots[min(at, len(accuracies)) - 1]
    choice = choose(shelf, served, GATE)
    assert choice is not None
    assert choice.version >= served.version
    assert GATE.objection(choice, served) is None
    later = [one for one in shelf.snapshots if one.version > choice.version]
    assert all(GATE.objection(one, served) is not None for one in later)
