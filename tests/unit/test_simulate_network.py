"""Virtual time and the links: order, delays, loss, repetition, partitions, and the newest that stands for all."""

from __future__ import annotations

import random

import pytest
import torch

from concord.simulate.clock import Agenda, Rank, Span
from concord.simulate.faults import Faults
from concord.simulate.network import Lane, Link
from concord.wire.messages import Header, Stamp, Update


class Line:
    """A lane with nothing around it: what arrived is noted with its time."""

    def __init__(self, link: Link, outages: tuple[Span, ...] = (), seed: int = 0) -> None:
        self.agenda = Agenda()
        self.arrived: list[tuple[float, int]] = []
        self.lane = Lane(self.agenda, link, outages, random.Random(seed), self._note)

    def post(self, at: float, sequence: int, value: float = 1.0) -> None:
        self.agenda.add(at, Rank.STEP, lambda: self.lane.post(update(sequence, value)))

    def run(self) -> list[tuple[float, int]]:
        while self.agenda.next_at is not None:
            self.agenda.advance()
        return self.arrived

    def _note(self, update: Update) -> None:
        self.arrived.append((self.agenda.now, update.header.stamp.sequence))


def update(sequence: int, value: float = 1.0) -> Update:
    stamp = Stamp(1, 1, sequence)
    header = Header("f", "print", "N1", "N2", stamp, 0, 0, "ecl", 1.0, 1.0, 0.0)
    return Update(header, {"message": torch.full((25,), value)})


def test_what_happens_is_ordered_by_time_then_rank_then_entry() -> None:
    agenda, seen = Agenda(), []
    for at, rank, name in [
        (2.0, Rank.DELIVERY, "late"),
        (1.0, Rank.MEASURE, "measure"),
        (1.0, Rank.STEP, "first"),
        (1.0, Rank.STEP, "second"),
        (1.0, Rank.DELIVERY, "news"),
    ]:
        agenda.add(at, rank, lambda name=name: seen.append(name))
    while agenda.next_at is not None:
        agenda.advance()
    assert seen == ["news", "first", "second", "measure", "late"]
    assert agenda.now == 2.0


def test_a_transfer_takes_its_size_over_the_bandwidth_and_then_the_latency() -> None:
    line = Line(Link(latency=0.5, bandwidth=100.0))
    line.post(1.0, 1)
    assert line.run() == [(2.5, 1)]
    assert line.lane.traffic.bytes == 100


def test_while_the_link_is_busy_only_the_newest_waits() -> None:
    line = Line(Link(bandwidth=100.0))
    for number in range(1, 6):
        line.post(0.1 * number, number)
    assert line.run() == [(1.1, 1), (2.1, 5)]
    assert (line.lane.traffic.posted, line.lane.traffic.sent) == (5, 2)


@pytest.mark.parametrize("jitter", ["constant", "uniform", "exponential"])
def test_the_latency_is_a_mean_whatever_the_jitter(jitter: str) -> None:
    rng = random.Random(3)
    draws = [Link(latency=0.2, jitter=jitter).draw_latency(rng) for _ in range(4000)]
    assert sum(draws) / len(draws) == pytest.approx(0.2, rel=0.05)
    assert (max(draws) > 0.4) == (jitter == "exponential")
    assert (min(draws) == max(draws)) == (jitter == "constant")


def test_random_latency_lets_messages_overtake_each_other() -> None:
    line = Line(Link(latency=1.0, jitter="exponential"))
    for number in range(50):
        line.post(0.1 * number, number)
    order = [sequence for _, sequence in line.run()]
    assert sorted(order) == list(range(50))
    assert order != sorted(order)


def test_messages_sent_at_once_overtake_each_other_in_half_of_the_cases() -> None:
    line = Line(Link(latency=1.0, jitter="exponential"), seed=2)
    for pair in range(1000):
        line.post(100.0 * pair, 2 * pair)
        line.post(100.0 * pair + 0.01, 2 * pair + 1)
    places = {sequence: place for place, (_, sequence) in enumerate(line.run())}
    overtaken = sum(places[2 * pair + 1] < places[2 * pair] for pair in range(1000))
    assert overtaken / 1000 == pytest.approx(0.5, abs=0.05)


def test_loss_and_duplication_happen_as_often_as_asked() -> None:
    line = Line(Link(loss=0.25, duplication=0.5), seed=1)
    for number in range(2000):
        line.post(0.01 * number, number)
    arrived = line.run()
    assert line.lane.traffic.lost / 2000 == pytest.approx(0.25, abs=0.03)
    assert len(arrived) / (2000 - line.lane.traffic.lost) == pytest.approx(1.5, abs=0.04)


def test_a_partition_stops_all_and_at_its_end_the_newest_goes_out() -> None:
    line = Line(Link(latency=0.2), (Span(1.0, 2.0),))
    for at, number in [(0.9, 1), (1.2, 2), (1.4, 3)]:
        line.post(at, number)
    assert line.run() == [(2.2, 3)]
    assert line.lane.traffic.lost == 1  # the one that was under way


def test_what_is_not_finite_goes_no_further() -> None:
    line = Line(Link())
    line.post(0.0, 1, value=float("nan"))
    assert line.run() == []
    assert line.lane.traffic.refused == 1


def test_an_outbox_that_died_with_its_sender_is_not_sent_again() -> None:
    line = Line(Link())
    line.post(0.0, 1)
    line.agenda.add(1.0, Rank.CHANGE, line.lane.resend)
    line.agenda.add(2.0, Rank.CHANGE, line.lane.forget)
    line.agenda.add(3.0, Rank.CHANGE, line.lane.resend)
    assert line.run() == [(0.0, 1), (1.0, 1)]


@pytest.mark.parametrize(
    ("start", "end"), [(0.0, 2.0), (3.0, 7.0), (4.0, 8.0), (5.5, 8.0), (6.0, 8.0)], ids=lambda value: str(value)
)
def test_a_step_takes_longer_by_the_pauses_in_it(start: float, end: float) -> None:
    assert Faults(speed=0.5, pauses=(Span(4.0, 6.0),)).finish(start, 1.0) == end


def test_pauses_may_follow_each_other() -> None:
    assert Faults(pauses=(Span(1.0, 2.0), Span(2.5, 4.0))).finish(0.5, 1.5) == 4.5


@pytest.mark.parametrize(
    ("faults", "there", "back"),
    [
        (Faults(), True, False),
        (Faults(joins=1.0), False, False),
        (Faults(leaves=1.0), True, False),
        (Faults(joins=1.0, leaves=2.0), False, False),
        (Faults(joins=2.0, leaves=1.0), True, True),
    ],
)
def test_who_is_there_from_the_start_and_who_comes_back(faults: Faults, there: bool, back: bool) -> None:
    assert (faults.starts_present, faults.comes_back) == (there, back)
