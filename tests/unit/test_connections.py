"""Who gets a place, and whom an address stands for."""

from __future__ import annotations

import pytest

from concord.apps.connections import ConnectionLimits, Entrance, GuardedProtocol, address_key


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002/64"),
        ("2001:db8:1:2::", "20010db800010002/64"),
        ("fe80::1%eth0", "fe80000000000000/64"),
        ("::1", "0000000000000000/64"),
        ("", ""),
    ],
)
def test_addresses_are_counted_as_those_who_have_them(address: str, key: str) -> None:
    assert address_key(address) == key


@pytest.fixture
def closed() -> list[str]:
    return []


@pytest.fixture
def entrance() -> Entrance:
    return Entrance(GuardedProtocol, ConnectionLimits(connections=3, per_address=2))


def test_of_a_crowded_address_the_longest_waiting_one_goes(entrance: Entrance, closed: list[str]) -> None:
    other = entrance.admit("b", 0.0, lambda: closed.append("b0"))
    for number in (1, 2, 3):
        assert entrance.admit("a", float(number), lambda number=number: closed.append(f"a{number}")) is not None
    assert other is not None
    assert closed == ["a1"]
    assert len(entrance) == 3


def test_where_all_are_at_work_nobody_goes_and_nobody_comes(entrance: Entrance, closed: list[str]) -> None:
    places = [entrance.admit(address, 0.0, lambda: closed.append("one")) for address in ("a", "a", "b")]
    for place in places:
        assert place is not None
        place.waiting_since = None
    assert entrance.at_work == 3
    assert entrance.admit("a", 1.0, lambda: None) is None
    assert entrance.admit("c", 1.0, lambda: None) is None
    assert (closed, entrance.turned_away["full"]) == ([], 2)
    assert places[2] is not None
    for _ in range(2):
        entrance.leave(places[2])
    assert len(entrance) == 2
    assert entrance.admit("c", 1.0, lambda: None) is not None
