"""Decorrelated jitter: bounds, growth and determinism."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from concord.transport.backoff import DecorrelatedJitter


@given(seed=st.integers(0, 2**32), count=st.integers(1, 60))
def test_waits_stay_between_base_and_cap(seed: int, count: int) -> None:
    backoff = DecorrelatedJitter(0.1, 5.0, random.Random(seed))
    assert all(0.1 <= backoff.next() <= 5.0 for _ in range(count))


def test_each_wait_is_at_most_three_times_the_one_before() -> None:
    backoff = DecorrelatedJitter(0.1, 1000.0, random.Random(0))
    waits = [0.1, *(backoff.next() for _ in range(20))]
    assert all(later <= 3 * earlier for earlier, later in pairwise(waits))


def test_waits_grow_to_near_the_cap() -> None:
    backoff = DecorrelatedJitter(0.01, 2.0, random.Random(1))
    waits = [backoff.next() for _ in range(200)]
    assert max(waits) == 2.0
    assert sum(waits[100:]) / 100 > 0.5


def test_reset_starts_over() -> None:
    backoff = DecorrelatedJitter(0.1, 100.0, random.Random(2))
    for _ in range(30):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.3


def test_two_clients_scatter() -> None:
    ours = DecorrelatedJitter(0.1, 10.0, random.Random(3))
    theirs = DecorrelatedJitter(0.1, 10.0, random.Random(4))
    assert [ours.next() for _ in range(5)] != [theirs.next() for _ in range(5)]
