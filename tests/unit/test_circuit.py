"""The circuit breaker, on a clock that the test turns."""

from __future__ import annotations

import pytest

from concord.transport.circuit import CircuitBreaker, CircuitState


@pytest.fixture
def circuit() -> CircuitBreaker:
    return CircuitBreaker(threshold=3, cool_down=10.0)


@pytest.fixture
def opened(circuit: CircuitBreaker) -> CircuitBreaker:
    """A circuit that opened at time 100."""
    for _ in range(3):
        circuit.fail(100.0)
    return circuit


def test_stays_closed_below_the_threshold(circuit: CircuitBreaker) -> None:
    circuit.fail(1.0)
    circuit.fail(2.0)
    assert circuit.state is CircuitState.CLOSED
    assert circuit.allow(2.0)
    assert circuit.wait(2.0) == 0.0


def test_only_failures_in_a_row_count(circuit: CircuitBreaker) -> None:
    for _ in range(5):
        circuit.fail(1.0)
        circuit.fail(1.0)
        circuit.succeed()
    assert circuit.state is CircuitState.CLOSED


def test_opens_at_the_threshold_and_lets_nothing_through(opened: CircuitBreaker) -> None:
    assert opened.state is CircuitState.OPEN
    assert not opened.allow(100.0)
    assert not opened.allow(109.9)
    assert opened.wait(103.0) == pytest.approx(7.0)


def test_lets_a_single_probe_through_after_the_cool_down(opened: CircuitBreaker) -> None:
    assert opened.allow(110.0)
    assert opened.state is CircuitState.HALF_OPEN
    assert not opened.allow(110.0)
    assert not opened.allow(200.0)
    assert opened.wait(110.0) > 0.0


def test_a_probe_that_succeeds_closes(opened: CircuitBreaker) -> None:
    opened.allow(110.0)
    opened.succeed()
    assert opened.state is CircuitState.CLOSED
    opened.fail(111.0)
    assert opened.state is CircuitState.CLOSED


def test_a_probe_that_fails_opens_for_another_cool_down(opened: CircuitBreaker) -> None:
    opened.allow(110.0)
    opened.fail(112.0)
    assert opened.state is CircuitState.OPEN
    assert not opened.allow(121.9)
    assert opened.allow(122.0)


def test_a_probe_given_up_leaves_its_turn_to_the_next(opened: CircuitBreaker) -> None:
    opened.allow(110.0)
    opened.abandon(111.0)
    assert opened.state is CircuitState.OPEN
    assert opened.allow(111.0)


def test_giving_up_an_ordinary_request_changes_nothing(circuit: CircuitBreaker) -> None:
    circuit.abandon(1.0)
    assert circuit.state is CircuitState.CLOSED


def test_a_sign_of_life_allows_the_probe_at_once(opened: CircuitBreaker) -> None:
    opened.hasten(101.0)
    assert opened.allow(101.0)
    assert opened.state is CircuitState.HALF_OPEN


def test_a_sign_of_life_means_nothing_to_a_closed_circuit(circuit: CircuitBreaker) -> None:
    circuit.hasten(1.0)
    assert circuit.state is CircuitState.CLOSED
