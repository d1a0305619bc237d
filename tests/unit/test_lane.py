"""One edge's lane against a neighbour played by the test, on a clock that the test turns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from concord.errors import JobError, NotAllowed, RefusalReason, TransportError
from concord.mailbox.memory import MemoryMailbox
from concord.site.edges import NOTE_EDGES, NOTE_FLOOR
from concord.site.ports import Box, Slot
from concord.transport.acceptance import Acceptance, EdgeBook
from concord.transport.circuit import CircuitState
from concord.transport.http import Busy, Delivered, Nothing, PullResult, PushResult, Refusal
from concord.transport.lane import CourierSettings, EdgeRoute, Lane
from concord.transport.outbox import Outbox
from concord.transport.traffic import ExchangeState
from concord.wire.messages import Stamp
from exchange_sites import edge_table, update_slot

pytestmark = pytest.mark.anyio

AWAY = TransportError("N2 is away")
SETTINGS = CourierSettings(threshold=3, cool_down=10.0, retry_base=0.1, retry_cap=1.0)


class Clock:
    """A clock that stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Neighbour:
    """Gives the answers it was told to give, in order, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[PushResult | PullResult | TransportError] = []
        self.pushed: list[Stamp] = []
        self.pulled: list[tuple[Stamp | None, float]] = []
        self.meanwhile: Callable[[], Awaitable[None]] = self._nothing

    async def _nothing(self) -> None:
        """What happens while a push is on its way, unless a test says otherwise."""

    async def push(self, url: str, receiver: str, slot: Slot) -> PushResult:
        self.pushed.append(slot.stamp)
        await self.meanwhile()
        answer = self._answer() if self.answers else Delivered(slot.stamp)
        assert not isinstance(answer, Slot | Nothing)
        return answer

    async def pull(self, url: str, sender: str, after: Stamp | None, wait: float, max_bytes: int) -> PullResult:
        self.pulled.append((after, wait))
        answer = self._answer() if self.answers else Nothing()
        assert not isinstance(answer, Delivered)
        return answer

    def _answer(self) -> PushResult | PullResult:
        answer = self.answers.pop(0)
        if isinstance(answer, TransportError):
            raise answer
        return answer


class Bench:
    """A lane from N1 to N2 with everything it needs."""

    def __init__(self, *, pull: bool = True, min_interval: float = 0.0) -> None:
        self.clock = Clock()
        self.mailbox = MemoryMailbox()
        self.state = ExchangeState("N1")
        self.traffic = self.state.edges["N2"]
        self.neighbour = Neighbour()
        self.outbox = Outbox(self.mailbox, self.state, random.Random(0))
        book = EdgeBook(self.mailbox, "N1", None, self.clock)
        self.lane = Lane(
            EdgeRoute("N2", "http://n2", push=True, pull=pull, min_interval=min_interval),
            SETTINGS,
            self.neighbour,
            self.outbox,
            Acceptance(self.mailbox, book, self.state),
            self.traffic,
            random.Random(1),
            self.clock,
        )

    async def publish(self, sequence: int, incarnation: int = 1) -> None:
        slot = update_slot("N1", "N2", sequence, incarnation=incarnation)
        await self.mailbox.put(Box.OUTBOX, "N2", slot)

    async def push(self, *, after: float = 100.0) -> None:
        """One turn, `after` seconds later."""
        self.clock.now += after
        await asyncio.wait_for(self.lane.push(), 1.0)

    async def pull(self, *, after: float = 100.0) -> None:
        self.clock.now += after
        await asyncio.wait_for(self.lane.pull(), 1.0)

    async def is_held_back(self, *, after: float) -> bool:
        """Whether a push would not be made `after` seconds from now."""
        before = len(self.neighbour.pushed)
        self.clock.now += after
        turn = asyncio.create_task(self.lane.push())
        await asyncio.wait((turn,), timeout=0.01)
        turn.cancel()
        await asyncio.wait((turn,))
        return len(self.neighbour.pushed) == before


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.mailbox.write_note(NOTE_EDGES, edge_table("N2").to_json())
    return bench


def test_a_way_that_needs_an_address_must_have_one() -> None:
    with pytest.raises(JobError, match="N2"):
        EdgeRoute("N2", None, push=True, pull=False)
    assert not EdgeRoute("N2", None, push=False, pull=False).push


async def test_pushes_the_newest_and_waits_for_newer(bench: Bench) -> None:
    await bench.publish(1)
    await bench.publish(2)
    await bench.push()
    assert bench.neighbour.pushed == [Stamp(1, 1, 2)]
    assert bench.traffic.delivered == Stamp(1, 1, 2)
    assert await bench.is_held_back(after=100.0)


async def test_a_retry_sends_what_is_newest_then(bench: Bench) -> None:
    bench.neighbour.answers = [AWAY]
    await bench.publish(1)
    await bench.push()
    await bench.publish(2)
    await bench.publish(3)
    await bench.push()
    assert bench.neighbour.pushed == [Stamp(1, 1, 1), Stamp(1, 1, 3)]
    assert (bench.traffic.attempts, bench.traffic.failures, bench.traffic.sent) == (2, 1, 1)


async def test_a_failure_is_followed_by_a_pause(bench: Bench) -> None:
    bench.neighbour.answers = [AWAY]
    await bench.publish(1)
    await bench.push()
    assert await bench.is_held_back(after=0.09)
    assert not await bench.is_held_back(after=1.0)


async def test_a_neighbour_that_stays_away_is_probed_once_per_cool_down(bench: Bench) -> None:
    bench.neighbour.answers = [AWAY] * 100
    await bench.publish(1)
    for _ in range(SETTINGS.threshold):
        await bench.push()
    assert bench.traffic.circuit is CircuitState.OPEN
    for _ in range(5):
        assert await bench.is_held_back(after=9.9)
        assert not await bench.is_held_back(after=0.2)
    assert bench.traffic.attempts == SETTINGS.threshold + 5


async def test_a_neighbour_that_returns_closes_the_circuit(bench: Bench) -> None:
    bench.neighbour.answers = [AWAY] * SETTINGS.threshold
    await bench.publish(1)
    for _ in range(SETTINGS.threshold + 1):
        await bench.push()
    assert bench.traffic.circuit is CircuitState.CLOSED
    assert bench.traffic.delivered == Stamp(1, 1, 1)


async def test_a_sign_of_life_cuts_the_wait_short_but_not_too_often(bench: Bench) -> None:
    bench.neighbour.answers = [AWAY] * 100
    await bench.publish(1)
    for _ in range(SETTINGS.threshold):
        await bench.push()
    bench.clock.now += 2.0
    bench.lane.hasten()
    assert not await bench.is_held_back(after=0.0)
    for _ in range(10):
        bench.lane.hasten()
    assert await bench.is_held_back(after=0.5)


async def test_a_lane_that_waits_wakes_at_a_sign_of_life(bench: Bench) -> None:
    bench.neighbour.answers = [Busy(503, 60.0, "no trainer yet")]
    await bench.publish(1)
    await bench.push()
    bench.clock.now += 2.0
    turn = asyncio.create_task(bench.lane.push())
    await asyncio.sleep(0)
    bench.lane.hasten()
    await asyncio.wait_for(turn, 1.0)
    assert bench.traffic.delivered == Stamp(1, 1, 1)


async def test_a_busy_neighbour_is_given_the_time_it_asks_for(bench: Bench) -> None:
    bench.neighbour.answers = [Busy(503, 7.0, "no trainer yet")]
    await bench.publish(1)
    await bench.push()
    assert await bench.is_held_back(after=6.9)
    assert not await bench.is_held_back(after=0.2)
    assert bench.traffic.circuit is CircuitState.CLOSED


async def test_a_refusal_is_counted_and_retried_slowly_even_if_heard_of(bench: Bench) -> None:
    bench.neighbour.answers = [Refusal(409, "fingerprint", "the model is another")] * 10
    await bench.publish(1)
    await bench.push()
    assert bench.traffic.rejected == {"fingerprint": 1}
    assert "409 fingerprint" in (bench.traffic.last_error or "")
    assert await bench.is_held_back(after=0.9)
    bench.clock.now += 0.05
    bench.lane.hasten()
    assert await bench.is_held_back(after=0.0)
    assert not await bench.is_held_back(after=30.0)
    assert bench.traffic.circuit is CircuitState.CLOSED


@pytest.mark.parametrize(("status", "reason"), [(403, "not_allowed"), (409, "epoch"), (409, "terms")])
async def test_an_edge_of_which_the_other_end_has_not_heard_yet_is_tried_soon(
    bench: Bench, status: int, reason: str
) -> None:
    bench.neighbour.answers = [Refusal(status, reason, "no such edge")] * 20
    await bench.publish(1)
    for _ in range(8):
        await bench.push()
        bench.clock.now += 5.0
        assert not await bench.is_held_back(after=0.0)
    await bench.push()
    bench.clock.now += 1.0
    bench.lane.hasten()
    assert not await bench.is_held_back(after=0.0)


async def test_pushes_keep_the_least_interval() -> None:
    bench = Bench(min_interval=5.0)
    await bench.publish(1)
    await bench.push()
    await bench.publish(2)
    assert await bench.is_held_back(after=4.9)
    await bench.publish(3)
    assert not await bench.is_held_back(after=0.2)
    assert bench.neighbour.pushed == [Stamp(1, 1, 1), Stamp(1, 1, 3)]


async def test_a_neighbour_that_remembers_a_later_life_raises_the_floor(bench: Bench) -> None:
    bench.neighbour.answers = [Delivered(Stamp(1, 6, 900))]
    await bench.publish(1)
    await bench.push()
    assert await bench.mailbox.read_note(NOTE_FLOOR) == "6"


@pytest.mark.parametrize("life", [1, 2])
async def test_an_equal_life_that_was_longer_raises_the_floor_too(bench: Bench, life: int) -> None:
    bench.neighbour.answers = [Delivered(Stamp(1, life, 900))]
    await bench.publish(1, incarnation=life)
    await bench.push()
    assert await bench.mailbox.read_note(NOTE_FLOOR) == str(life)


async def test_a_floor_is_never_lowered(bench: Bench) -> None:
    await bench.mailbox.write_note(NOTE_FLOOR, "9")
    bench.neighbour.answers = [Delivered(Stamp(1, 6, 900))]
    await bench.publish(1)
    await bench.push()
    assert await bench.mailbox.read_note(NOTE_FLOOR) == "9"


async def test_a_neighbour_that_got_something_newer_by_pulling_is_no_later_life(bench: Bench) -> None:
    bench.neighbour.answers = [Delivered(Stamp(1, 1, 3))]
    bench.neighbour.meanwhile = lambda: bench.publish(3)
    await bench.publish(1)
    await bench.push()
    assert await bench.mailbox.read_note(NOTE_FLOOR) is None


async def test_what_the_trainer_has_taken_in_counts_though_the_inbox_lost_it(bench: Bench) -> None:
    seen = replace(edge_table("N2"), seen={"N2": "1.5.100"})
    await bench.mailbox.write_note(NOTE_EDGES, seen.to_json())
    bench.neighbour.answers = [update_slot("N2", "N1", 4, incarnation=1), update_slot("N2", "N1", 1, incarnation=6)]
    await bench.pull()
    assert await bench.mailbox.read(Box.INBOX, "N2") is None, "the trainer would pass over it"
    await bench.pull()
    assert bench.neighbour.pulled[-1][0] == Stamp(1, 5, 100), "so that the neighbour learns of its later life"
    slot = await bench.mailbox.read(Box.INBOX, "N2")
    assert slot is not None
    assert slot.stamp == Stamp(1, 6, 1)


async def test_a_life_that_begins_anew_in_an_emptied_slot_is_noticed_after_a_while(bench: Bench) -> None:
    clock = Clock()
    outbox = Outbox(bench.mailbox, bench.state, random.Random(0), clock)
    old = Stamp(1, 1, 100)
    await bench.publish(100)
    assert await outbox.read("N2", None) is not None
    await bench.mailbox.discard(Box.OUTBOX, "N2")
    await bench.publish(1)
    await outbox.heed("N2", old)
    assert await bench.mailbox.read_note(NOTE_FLOOR) is None, "what was read a moment ago is believed"
    clock.now += 60.0
    await outbox.heed("N2", old)
    assert await bench.mailbox.read_note(NOTE_FLOOR) == "1"


async def test_pulls_in_a_hurry_first_and_then_lets_the_neighbour_hold_them(bench: Bench) -> None:
    bench.neighbour.answers = [update_slot("N2", "N1", 4), Nothing()]
    await bench.pull()
    await bench.pull()
    assert bench.neighbour.pulled == [(None, 0.0), (Stamp(1, 1, 4), SETTINGS.pull_wait)]
    slot = await bench.mailbox.read(Box.INBOX, "N2")
    assert slot is not None
    assert slot.stamp == Stamp(1, 1, 4)
    assert bench.traffic.received == 1


async def test_what_is_pulled_is_checked_like_what_is_pushed(bench: Bench) -> None:
    bench.neighbour.answers = [update_slot("N2", "N1", 4, fingerprint="beef")]
    await bench.pull()
    assert bench.traffic.refused == {RefusalReason.FINGERPRINT: 1}
    assert await bench.mailbox.read(Box.INBOX, "N2") is None


async def test_in_push_mode_it_pulls_only_until_it_has_what_was_lost() -> None:
    bench = Bench(pull=False)
    await bench.mailbox.write_note(NOTE_EDGES, edge_table("N2").to_json())
    bench.neighbour.answers = [AWAY, update_slot("N2", "N1", 4)]
    assert bench.lane.wants_pull()
    await bench.pull()
    assert bench.lane.wants_pull()
    await bench.pull()
    assert not bench.lane.wants_pull()
    bench.lane.forget()
    assert bench.lane.wants_pull()


async def test_after_a_loss_everything_is_sent_and_fetched_again(bench: Bench) -> None:
    bench.neighbour.answers = [update_slot("N2", "N1", 4)]
    await bench.publish(1)
    await bench.pull()
    await bench.push()
    bench.lane.forget()
    await bench.push()
    await bench.pull()
    assert bench.neighbour.pushed == [Stamp(1, 1, 1), Stamp(1, 1, 1)]
    assert bench.neighbour.pulled[-1] == (None, 0.0)


async def test_a_neighbour_that_does_not_hold_pulls_is_not_asked_in_a_tight_loop(bench: Bench) -> None:
    await bench.pull()
    await bench.pull()
    turn = asyncio.create_task(bench.lane.pull())
    await asyncio.wait((turn,), timeout=0.01)
    assert not turn.done()
    turn.cancel()
    await asyncio.wait((turn,))


async def test_a_pull_of_no_neighbour_is_an_error_to_repeat_later(bench: Bench) -> None:
    await bench.mailbox.write_note(NOTE_EDGES, edge_table("N3").to_json())
    with pytest.raises(NotAllowed):
        await bench.pull()
