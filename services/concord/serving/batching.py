"""Answers requests together that come while the model is at work, and a lone one at once.

No request ever waits for others to come. What is there at the end of one turn of the event loop is computed: on the
loop if that takes less than the way to another thread and back, else in one worker, and what comes meanwhile is the
next batch. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from concord.errors import QueueFullError
from concord.serving.fair_queue import FairQueue
from concord.serving.pace import Pace
from concord.serving.predictor import Prediction, ServedModel

Outcome = Prediction | Exception


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`rows` of a batch at most, but for one request of more; 1 answers each by itself.

    `queue_rows` may wait, and none longer than `queue_seconds`. A batch is computed on the event loop if it should take
    at most `inline_seconds`: higher values make everything else there wait longer.
    """

    rows: int = 32
    queue_rows: int = 1024
    queue_seconds: float = 2.0
    inline_seconds: float = 0.0005


@dataclass(slots=True)
class BatchState:
    """Counters since the start; `largest` is in rows."""

    batches: int = 0
    requests: int = 0
    rows: int = 0
    largest: int = 0
    refused: int = 0
    """Found no room, were pushed out, or waited too long."""


@dataclass(eq=False, slots=True)
class _Request:
    served: ServedModel
    inputs: Tensor
    client: str
    future: asyncio.Future[Prediction]
    since: float

    @property
    def rows(self) -> int:
        return self.inputs.shape[0]

    @property
    def is_gone(self) -> bool:
        return self.future.done()


class Batcher:
    """For one event loop. `worker` has one thread; `clock` counts seconds."""

    def __init__(
        self, limits: BatchLimits, worker: Executor | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.state = BatchState()
        self.limits = limits
        self._worker = worker or ThreadPoolExecutor(max_workers=1, thread_name_prefix="predict")
        self._clock = clock
        self._queue: FairQueue[_Request] = FairQueue(limits.queue_rows)
        self._pace = Pace()
        self._busy = False
        self._woken = False

    @property
    def crowded(self) -> bool:
        """Whether a request just submitted may have to wait for others than those computed together with it."""
        return self._busy or self._queue.rows > self.limits.rows

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._queue.rows

    @property
    def abandoned(self) -> int:
        """Requests that were not computed because their callers had gone."""
        return self._queue.abandoned

    def submit(self, served: ServedModel, inputs: Tensor, client: str) -> asyncio.Future[Prediction]:
        """The answer to `inputs` (n, *input_shape) to come; cancel it, and it is not computed if it still waits.

        `client` is whom the queue is to be fair to. QueueFullError, at once or as the future's, if there is no room or
        it waits too long; what the model raises is the future's.
        """
        loop = asyncio.get_running_loop()
        request = _Request(served, inputs, client, loop.create_future(), self._clock())
        if not self._queue.put(request, self._push_out):
            self.state.refused += 1
            raise QueueFullError(f"{self._queue.rows} rows wait already")
        self._wake(loop)
        return request.future

    def close(self) -> None:
        """End the worker after what it is at."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._busy and not self._woken:
            self._woken = True
            # Not now: what else has come in this turn of the loop is answered together with it.
            loop.call_soon(self._work)

    def _work(self) -> None:
        self._woken = False
        batch = self._take()
        if not batch:
            return
        loop, served = asyncio.get_running_loop(), batch[0].served
        rows = sum(request.rows for request in batch)
        self._count(len(batch), rows)
        inputs = [request.inputs for request in batch]
        if self._pace.expect(served, rows) > self.limits.inline_seconds:
            self._busy = True
            answers = loop.run_in_executor(self._worker, self._answer, served, rows, inputs)
            answers.add_done_callback(lambda done: self._receive(batch, done))
            return
        _deliver(batch, self._answer(served, rows, inputs))
        if self._queue.rows:
            self._wake(loop)  # whatever else the loop has to do comes first

    def _answer(self, served: ServedModel, rows: int, inputs: list[Tensor]) -> list[Outcome]:
        began = time.perf_counter()
        outcomes = answer_together(served, inputs)
        self._pace.learn(served, rows, time.perf_counter() - began)
        return outcomes

    def _take(self) -> list[_Request]:
        while True:
            taken = self._queue.take(self.limits.rows)
            earliest = self._clock() - self.limits.queue_seconds
            for late in [request for request in taken if request.since < earliest]:
                self._push_out(late)
            batch = [request for request in taken if not request.is_gone]
            if batch or not taken:
                return batch

    def _receive(self, batch: list[_Request], answers: asyncio.Future[list[Outcome]]) -> None:
        self._busy = False
        if answers.cancelled():  # the worker was closed
            for request in batch:
                request.future.cancel()
            return
        _deliver(batch, answers.result())
        self._work()

    def _push_out(self, request: _Request) -> None:
        self.state.refused += 1
        request.future.set_exception(QueueFullError("others came in between, or it took too long"))

    def _count(self, requests: int, rows: int) -> None:
        self.state.batches += 1
        self.state.requests += requests
        self.state.rows += rows
        self.state.largest = max(self.state.largest, rows)


def answer_together(served: ServedModel, inputs: Sequence[Tensor]) -> list[Outcome]:
    """The model's answer to each of the `inputs`, computed in one pass; or what it raised.

    If it fails on all of them together, each is tried by itself: one bad request must not fail its neighbours.
    """
    if len(inputs) == 1:
        return [_attempt(served, inputs[0])]
    try:
        together = served.predict(torch.cat(list(inputs)))
    except Exception:
        return [_attempt(served, each) for each in inputs]
    return list(together.split([len(each) for each in inputs]))


def _attempt(served: ServedModel, inputs: Tensor) -> Outcome:
    try:
        return served.predict(inputs)
    except Exception as error:  # a model of the user's own may raise anything; it is its caller's to hear
        return error


def _deliver(batch: Sequence[_Request], outcomes: Sequence[Outcome]) -> None:
    for request, outcome in zip(batch, outcomes, strict=True):
        if request.future.done():  # its caller has gone meanwhile
            continue
        if isinstance(outcome, Exception):
            request.future.set_exception(outcome)
        else:
            request.future.set_result(outcome)
