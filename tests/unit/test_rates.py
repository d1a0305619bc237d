"""Token buckets: what is allowed, what is not, and who suffers for whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concord.errors import TooOftenError
from concord.transport.rates import Bucket, RateLimits, Rates

LIMITS = RateLimits(site_rate=10.0, site_burst=5, stranger_rate=1.0, stranger_burst=2, addresses=3)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock: Clock) -> Rates:
    return Rates(LIMITS, clock)


@given(
    gaps=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=100), rate=st.floats(0.1, 50.0), burst=st.integers(1, 20)
)
def test_no_more_than_the_burst_and_the_rate_ever_pass(gaps: list[float], rate: float, burst: int) -> None:
    bucket, now, taken = Bucket(rate, burst, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        wait = bucket.take(now)
        taken += wait == 0.0
        assert 0.0 <= wait <= 1.0 / rate + 1e-9
    assert taken <= burst + rate * now + 1e-6


def test_whoever_waits_as_told_passes(rates: Rates, clock: Clock) -> None:
    for _ in range(LIMITS.site_burst):
        rates.approach("a", "N2")
        rates.proven("a", "N2")
    with pytest.raises(TooOftenError, match="N2 asks too often") as refused:
        rates.approach("a", "N2")
    assert refused.value.wait == pytest.approx(0.1)
    clock.now += refused.value.wait + 1e-6
    rates.approach("a", "N2")
    rates.proven("a", "N2")


def test_strangers_use_up_what_their_address_has_and_no_more(rates: Rates, clock: Clock) -> None:
    for _ in range(LIMITS.stranger_burst):
        rates.approach("evil", "N2")
    with pytest.raises(TooOftenError, match="evil has asked too often without proof"):
        rates.approach("evil", "N3")
    rates.approach("good", "N2")
    rates.proven("good", "N2")
    clock.now += 1.0
    rates.approach("evil", "N2")


def test_who_proves_himself_pays_as_a_site_only(rates: Rates) -> None:
    for _ in range(LIMITS.site_burst):
        rates.approach("a", "N2")
        rates.proven("a", "N2")
    rates.approach("a", "N3")
    rates.proven("a", "N3")


def test_only_so_many_addresses_are_remembered(rates: Rates) -> None:
    for number in range(1000):
        rates.approach(str(number), "N2")
    assert len(rates._addresses) == LIMITS.addresses


def test_a_clock_that_goes_back_does_no_harm() -> None:
    bucket = Bucket(1.0, 1, 10.0)
    assert bucket.take(10.0) == 0.0
    assert bucket.take(5.0) == pytest.approx(1.0)
    assert bucket.take(11.0) == 0.0
