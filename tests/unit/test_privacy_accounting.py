"""Epsilon against published numbers, the exact value where there is one, and a count on disk that is never too low."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from concord.errors import CheckpointError, TaskError
from concord.learning.accountant import Mechanism, epsilon, steps_within
from concord.learning.ledger import BLOCK, FILE, Ledger

ONE = Mechanism(1.0, 0.25)
OTHER = Mechanism(2.0, 0.25)


def textbook(mechanism: Mechanism, steps: int, delta: float) -> float:
    """Mironov, Talwar and Zhang 2019, section 3.3, at whole orders, and Mironov 2017, proposition 3."""
    noise, rate = mechanism.noise_multiplier, mechanism.sample_rate

    def divergence(order: int) -> float:
        terms = [
            math.log(math.comb(order, k))
            + (order - k) * math.log1p(-rate)
            + k * math.log(rate)
            + (k * k - k) / 2 / noise**2
            for k in range(order + 1)
        ]
        greatest = max(terms)
        return (greatest + math.log(sum(math.exp(term - greatest) for term in terms))) / (order - 1)

    return min(steps * divergence(order) + math.log(1 / delta) / (order - 1) for order in range(2, 64))


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "published"),
    [
        (1.3, 256 / 60_000, 15 * 60_000 // 256, 1.19),  # tutorial of TensorFlow Privacy, MNIST, 15 epochs
        (1.1, 256 / 60_000, 60 * 60_000 // 256, 3.01),  # 60 epochs
        (0.7, 256 / 60_000, 45 * 60_000 // 256, 7.10),  # 45 epochs
    ],
)
def test_epsilon_is_as_published_or_a_little_less(noise: float, rate: float, steps: int, published: float) -> None:
    """The numbers were published with an older, wider way from Renyi divergence to epsilon."""
    mechanism = Mechanism(noise, rate)
    assert abs(textbook(mechanism, steps, 1e-5) - published) < 0.03
    assert 0.75 * published < epsilon({mechanism: steps}, 1e-5) < published


@pytest.mark.parametrize("noise", [0.8, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.999])
def test_one_gradient_costs_no_less_than_told(noise: float, rate: float) -> None:
    """The true epsilon of one gradient, by integration over all that can come out, is below ours and not far."""

    def delta_at(epsilon_: float) -> float:
        # A sample that is added: the density is a mixture, and greatest against that without it where x is large.
        cut = noise**2 * math.log((math.exp(epsilon_) - 1 + rate) / rate) + 0.5
        with_, without = (
            (rate * stats.norm.sf(cut, 1, noise) + (1 - rate) * stats.norm.sf(cut, 0, noise)),
            stats.norm.sf(cut, 0, noise),
        )
        return float(with_ - math.exp(epsilon_) * without)

    exact = optimize.brentq(lambda tried: delta_at(tried) - 1e-5, 1e-9, 60.0)
    told = epsilon({Mechanism(noise, rate): 1}, 1e-5)
    assert exact <= told <= 2 * exact + 0.05


@settings(deadline=None)  # the first call loads Opacus
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_what_was_spent_adds_up(first: int, second: int) -> None:
    both = epsilon({ONE: first, OTHER: second}, 1e-5)
    assert both >= max(epsilon({ONE: first}, 1e-5), epsilon({OTHER: second}, 1e-5))
    assert epsilon({ONE: first + 1}, 1e-5) >= epsilon({ONE: first}, 1e-5)
    assert (epsilon({ONE: first}, 1e-5) == 0) == (first == 0)


@settings(deadline=None)
@given(target=st.floats(0.5, 50), before=st.integers(0, 500))
def test_the_steps_within_a_target_are_the_last_that_keep_it(target: float, before: int) -> None:
    steps = steps_within(target, 1e-5, ONE, {OTHER: before})
    if steps:
        assert epsilon({ONE: steps, OTHER: before}, 1e-5) <= target
    assert epsilon({ONE: steps + 1, OTHER: before}, 1e-5) > target


# --- on disk -----------------------------------------------------------------------------------------------------


def spent(folder: Path) -> int:
    """What one that comes after would take as spent."""
    return sum(Ledger(folder).spent.values())


def test_a_crash_never_makes_the_count_too_low(tmp_path: Path) -> None:
    done = 0
    for life in range(1, 4):
        ledger = Ledger(tmp_path)
        for _ in range(70):
            ledger.spend(ONE)
            done += 1
            assert done <= spent(tmp_path) <= done + life * BLOCK


def test_one_that_ends_on_purpose_counts_to_the_step(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert not ledger.found
    ledger.settle()
    assert Ledger(tmp_path).found
    for _ in range(7):
        ledger.spend(ONE)
    ledger.spend(OTHER)
    ledger.settle()
    assert Ledger(tmp_path).spent == {ONE: 7, OTHER: 1}


def test_a_count_that_is_known_to_lack_something_stays_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.spend(ONE)
    ledger.mark_incomplete()
    assert not Ledger(tmp_path).complete
    assert spent(tmp_path) == BLOCK


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"complete": true}', b'{"complete": true, "spent": [[1, 2]]}', b"\xff"]
)
def test_a_torn_count_is_not_taken_for_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="does not tell what was spent"):
        Ledger(tmp_path)


def test_no_gradient_without_a_note_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    ledger = Ledger(folder)
    with pytest.raises(CheckpointError, match="was not written"):
        ledger.spend(ONE)
    assert not ledger.spent


def test_without_opacus_one_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants.analysis", None)
    with pytest.raises(TaskError, match=r"pip install 'concord-edge\[privacy\]'"):
        epsilon({Mechanism(3.25, 0.125): 1}, 1e-5)
