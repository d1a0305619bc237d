"""The batcher and its queue: what waits, in what order it is computed, who is turned away, and that answers agree."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from concord.errors import QueueFullError
from concord.serving.batching import Batcher, BatchLimits, answer_together
from concord.serving.fair_queue import FairQueue
from concord.serving.predictor import Prediction, Predictor, ServedModel
from served_models import CLASSES, build_model, marked_snapshot, new_predictor, snapshot_of

OLD, NEW = new_predictor().swap(marked_snapshot(1)), new_predictor().swap(marked_snapshot(2))
SLOW = BatchLimits(rows=4, queue_rows=8, queue_seconds=10.0, inline_seconds=0.0)
"""Nothing is computed on the loop."""


@dataclass(eq=False)
class Ask:
    """A request in a queue."""

    client: str
    rows: int = 1
    served: ServedModel = OLD
    is_gone: bool = False


@dataclass
class Pushed:
    """Remembers who was pushed out."""

    requests: list[Ask] = field(default_factory=list)

    def __call__(self, request: Ask) -> None:
        self.requests.append(request)


class HeldWorker(Executor):
    """Runs what it was given when it is told to, in the caller's thread."""

    def __init__(self) -> None:
        self.given: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.given.append((future, lambda: work(*arguments)))
        return future

    async def finish(self) -> None:
        """End the oldest work, and let the loop hear of it."""
        future, work = self.given.pop(0)
        future.set_result(work())
        await turns()


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def turns() -> None:
    """Let the loop do what is ready, and what that makes ready."""
    for _ in range(5):
        await asyncio.sleep(0)


def rows(count: int, value: float = 0.0) -> Tensor:
    return torch.full((count, 4), value)


def versions(futures: list[asyncio.Future[Prediction]]) -> list[int]:
    return [future.result().version for future in futures]


# --- the queue -----------------------------------------------------------------------------------------------


def test_clients_are_taken_in_turn_however_much_one_of_them_asks() -> None:
    queue: FairQueue[Ask] = FairQueue(100)
    for request in [*(Ask("flood") for _ in range(20)), Ask("a"), Ask("b"), Ask("a")]:
        assert queue.put(request, Pushed())
    assert [request.client for request in queue.take(6)] == ["flood", "a", "b", "flood", "a", "flood"]
    assert queue.rows == 17


def test_a_batch_is_of_one_model_and_the_other_is_first_in_turn_afterwards() -> None:
    queue: FairQueue[Ask] = FairQueue(100)
    for request in [Ask("a"), Ask("b", served=NEW), Ask("c"), Ask("a", served=NEW)]:
        queue.put(request, Pushed())
    assert [(one.client, one.served) for one in queue.take(10)] == [("a", OLD), ("c", OLD)]
    assert [(one.client, one.served) for one in queue.take(10)] == [("b", NEW), ("a", NEW)]


def test_a_request_of_more_rows_than_a_batch_goes_alone() -> None:
    queue: FairQueue[Ask] = FairQueue(100)
    for request in [Ask("a"), Ask("b", rows=50), Ask("c")]:
        queue.put(request, Pushed())
    assert [[one.client for one in queue.take(8)] for _ in range(3)] == [["a"], ["b"], ["c"]]


def test_those_who_left_are_dropped_and_counted() -> None:
    queue: FairQueue[Ask] = FairQueue(100)
    for request in [Ask("a", is_gone=True), Ask("b"), Ask("a", is_gone=True)]:
        queue.put(request, Pushed())
    assert [one.client for one in queue.take(10)] == ["b"]
    assert (queue.rows, queue.abandoned) == (0, 2)


def test_a_full_queue_turns_away_who_has_most_in_it() -> None:
    queue: FairQueue[Ask] = FairQueue(4)
    flood = [Ask("flood") for _ in range(4)]
    pushed = Pushed()
    assert all(queue.put(request, pushed) for request in flood)
    assert not queue.put(Ask("flood"), pushed)
    assert queue.put(Ask("shy"), pushed)
    assert pushed.requests == [flood[-1]]
    assert queue.put(Ask("shy"), pushed)
    assert pushed.requests == [flood[-1], flood[-2]]
    assert not queue.put(Ask("shy"), pushed)
    assert {one.client for one in queue.take(2)} == {"flood", "shy"}


def test_a_request_of_more_rows_than_the_queue_holds_has_its_chance_when_it_is_empty() -> None:
    queue: FairQueue[Ask] = FairQueue(4)
    assert queue.put(Ask("a", rows=9), Pushed())
    assert not queue.put(Ask("b", rows=9), Pushed())


STEPS = st.lists(
    st.one_of(
        st.builds(
            Ask, st.sampled_from("abc"), st.integers(1, 5), st.sampled_from([OLD, NEW]), st.sampled_from([False, True])
        ),
        st.integers(1, 8),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 12))
def test_whatever_comes_and_goes_nothing_is_lost_doubled_mixed_or_over_the_limits(
    steps: list[Ask | int], capacity: int
) -> None:
    queue: FairQueue[Ask] = FairQueue(capacity)
    pushed, refused, taken = Pushed(), [], []
    put: list[Ask] = []
    for step in [*steps, *[10**6] * 3]:
        if isinstance(step, Ask):
            put.append(step)
            if not queue.put(step, pushed):
                refused.append(step)
            assert queue.rows <= max(capacity, *(one.rows for one in put))
            continue
        batch = queue.take(step)
        assert len({id(one.served) for one in batch}) <= 1
        assert len(batch) <= 1 or sum(one.rows for one in batch) <= step
        taken += batch
    assert queue.rows == 0
    assert not any(one.is_gone for one in taken)
    ends = Counter(id(one) for one in [*pushed.requests, *refused, *taken])
    assert all(count == 1 for count in ends.values())
    assert len(ends) + queue.abandoned == len(put)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(1, 8))
def test_nobody_gets_two_more_than_another_who_waits_as_long(counts: list[int], limit: int) -> None:
    queue: FairQueue[Ask] = FairQueue(1000)
    for client, count in enumerate(counts):
        for _ in range(count):
            queue.put(Ask(str(client)), Pushed())
    served: Counter[str] = Counter()
    while batch := queue.take(limit):
        served.update(one.client for one in batch)
        still = [served[str(client)] for client, count in enumerate(counts) if served[str(client)] < count]
        assert max(still, default=0) - min(still, default=0) <= 1


# --- the batcher ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_lone_request_is_computed_before_the_loop_does_anything_else() -> None:
    batcher = Batcher(BatchLimits(inline_seconds=1.0), HeldWorker())
    answer = batcher.submit(OLD, rows(1), "a")
    await asyncio.sleep(0)
    assert answer.done()
    assert (batcher.state.batches, batcher.state.largest) == (1, 1)


@pytest.mark.anyio
async def test_what_comes_in_one_turn_of_the_loop_is_computed_together() -> None:
    batcher = Batcher(BatchLimits(inline_seconds=1.0), HeldWorker())
    answers = [batcher.submit(OLD, rows(2), str(client)) for client in range(3)]
    await asyncio.gather(*answers)
    assert (batcher.state.batches, batcher.state.requests, batcher.state.rows) == (1, 3, 6)


@pytest.mark.anyio
async def test_batches_form_while_the_worker_is_at_work() -> None:
    worker = HeldWorker()
    batcher = Batcher(SLOW, worker)
    first = batcher.submit(OLD, rows(1), "a")
    await turns()
    later = [batcher.submit(OLD, rows(1), "a") for _ in range(6)]
    await turns()
    assert (len(worker.given), batcher.waiting, batcher.crowded) == (1, 6, True)
    await worker.finish()
    assert first.done()
    assert [answer.done() for answer in later] == [False] * 6
    await worker.finish()
    await worker.finish()
    assert all(answer.done() for answer in later)
    assert (batcher.state.batches, batcher.state.largest, batcher.crowded) == (3, 4, False)


@pytest.mark.anyio
async def test_versions_are_never_mixed() -> None:
    worker = HeldWorker()
    batcher = Batcher(SLOW, worker)
    models = [OLD, NEW, OLD, NEW]
    answers = [batcher.submit(model, rows(1), "a") for model in models]
    for _ in models:
        await turns()
        await worker.finish()
    assert versions(answers) == [model.snapshot.version for model in models]
    assert [answer.result().outputs[0, 0] for answer in answers] == [1.0, 2.0, 1.0, 2.0]


@pytest.mark.anyio
async def test_beyond_the_queue_requests_are_refused_and_one_who_floods_makes_way() -> None:
    worker = HeldWorker()
    batcher = Batcher(SLOW, worker)
    flood = [batcher.submit(OLD, rows(1), "flood") for _ in range(8)]
    with pytest.raises(QueueFullError):
        batcher.submit(OLD, rows(1), "flood")
    shy = batcher.submit(OLD, rows(1), "shy")
    assert isinstance(flood[-1].exception(), QueueFullError)
    assert batcher.state.refused == 2
    await turns()
    await worker.finish()
    assert shy.done()


@pytest.mark.anyio
async def test_a_request_whose_caller_left_is_not_computed() -> None:
    worker = HeldWorker()
    batcher = Batcher(SLOW, worker)
    first, gone, stays = (batcher.submit(OLD, rows(4 if client == "a" else 2), client) for client in "abc")
    await turns()
    gone.cancel()
    await worker.finish()
    await worker.finish()
    assert (first.done(), stays.done(), worker.given) == (True, True, [])
    assert (batcher.abandoned, batcher.state.requests) == (1, 2)


@pytest.mark.anyio
async def test_a_caller_who_leaves_while_it_is_computed_disturbs_nobody() -> None:
    worker = HeldWorker()
    batcher = Batcher(SLOW, worker)
    gone, stays = batcher.submit(OLD, rows(1), "a"), batcher.submit(OLD, rows(1), "b")
    await turns()
    gone.cancel()
    await worker.finish()
    assert stays.result().version == 1


@pytest.mark.anyio
async def test_who_has_waited_too_long_is_told_so() -> None:
    worker, clock = HeldWorker(), Clock()
    batcher = Batcher(SLOW, worker, clock)
    first = batcher.submit(OLD, rows(4), "a")
    await turns()
    late = batcher.submit(OLD, rows(1), "a")
    clock.now += 9.0
    fresh = batcher.submit(OLD, rows(1), "a")
    clock.now += 2.0
    await worker.finish()
    assert isinstance(late.exception(), QueueFullError)
    await worker.finish()
    assert (first.done(), fresh.result().version) == (True, 1)


class Picky(nn.Linear):
    """Fails on rows that begin with a negative number."""

    def forward(self, inputs: Tensor) -> Tensor:
        if bool((inputs[:, 0] < 0).any()):
            raise RuntimeError("a negative number")
        return super().forward(inputs)


@pytest.mark.anyio
async def test_a_request_that_fails_does_not_fail_those_beside_it() -> None:
    predictor = Predictor(lambda: Picky(4, 3), CLASSES, (4,), "picky")
    served = predictor.swap(snapshot_of(Picky(4, 3), 1))
    batcher = Batcher(BatchLimits(inline_seconds=1.0), HeldWorker())
    good, bad, other = (batcher.submit(served, rows(1, value), "a") for value in (1.0, -1.0, 2.0))
    await turns()
    assert (good.result().version, other.result().version) == (1, 1)
    assert str(bad.exception()) == "a negative number"


@pytest.mark.anyio
async def test_a_closed_batcher_leaves_nobody_waiting() -> None:
    worker = HeldWorker()
    batcher = Batcher(SLOW, worker)
    answer = batcher.submit(OLD, rows(1), "a")
    await turns()
    worker.given[0][0].cancel()
    await turns()
    assert answer.cancelled()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2**31))
@settings(deadline=None)
def test_answers_together_are_those_of_each_alone(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    served = new_predictor().swap(snapshot_of(build_model(), 1))
    inputs = [torch.randn(size, 4, generator=generator) for size in sizes]
    for asked, together in zip(inputs, answer_together(served, inputs), strict=True):
        alone = served.predict(asked)
        assert isinstance(together, Prediction)
        assert together.probabilities is not None
        torch.testing.assert_close(together.outputs, alone.outputs)
        torch.testing.assert_close(together.probabilities, alone.probabilities)
        assert (together.winners, together.labels) == (alone.winners, alone.labels)
        assert together.snapshot is alone.snapshot
        assert together.finite


def test_numbers_that_are_not_finite_are_only_held_against_whose_they_are() -> None:
    served = new_predictor().swap(snapshot_of(build_model(), 1))
    fine, wild = answer_together(served, [rows(1, 1.0), rows(1, 3e38).mul(10)])
    assert isinstance(fine, Prediction)
    assert isinstance(wild, Prediction)
    assert (fine.finite, wild.finite) == (True, False)


def test_convolutions_answer_together_as_alone() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))

    served = Predictor(build, CLASSES, (3, 8, 8), "pictures").swap(snapshot_of(build(), 1))
    inputs = [torch.rand(size, 3, 8, 8) for size in (1, 3, 2)]
    for asked, together in zip(inputs, answer_together(served, inputs), strict=True):
        assert isinstance(together, Prediction)
        torch.testing.assert_close(together.outputs, served.predict(asked).outputs)


def test_a_slow_model_is_one_whose_rows_take_longer_than_the_loop_may_be_held() -> None:
    async def handed_over(seconds: float) -> int:
        worker = HeldWorker()
        batcher = Batcher(replace(SLOW, inline_seconds=0.001), worker)
        batcher.submit(replace(OLD, seconds=seconds), rows(2), "a")
        await turns()
        return len(worker.given)

    assert asyncio.run(handed_over(0.0004)) == 0
    assert asyncio.run(handed_over(0.0006)) == 1
