"""Many callers at once over a real server: batches form, floods are turned away, nobody starves, those who left cost
nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from torch import Tensor, nn

from concord.apps.inference import InferenceService, InferenceSettings, create_app, create_inference
from concord.apps.serve import Server, bind
from concord.serving.batching import BatchLimits
from concord.serving.predictor import Predictor
from concord.serving.snapshots import MemoryShelf
from served_models import CLASSES, ROW, snapshot_of

pytestmark = pytest.mark.anyio

BODY = json.dumps({"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}]}).encode()
LIMITS = BatchLimits(rows=4, queue_rows=8, queue_seconds=60.0, inline_seconds=0.0)


class Gate(nn.Linear):
    """A model whose every pass waits until it is let through."""

    closed = False
    """For all of them: models are copied."""
    passes = threading.Semaphore(0)

    def forward(self, inputs: Tensor) -> Tensor:
        if Gate.closed:
            assert Gate.passes.acquire(timeout=20)
        return super().forward(inputs)


@dataclass(frozen=True)
class Place:
    """A server on loopback whose model is held."""

    service: InferenceService
    port: int

    async def ask(self, address: str = "127.0.0.1") -> tuple[int, dict[str, str]]:
        """Ask once from this address; status and headers of the answer."""
        reader, writer = await self.send(address)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
        lines = head.split("\r\n")
        return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:] if line)

    async def send(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request and leave it to the caller to read the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        head = f"POST /v2/models/gate/infer HTTP/1.1\r\nHost: site\r\nContent-Length: {len(BODY)}\r\n\r\n"
        writer.write(head.encode() + BODY)
        return reader, writer

    async def holds(self, requests: int) -> None:
        """Return once the model is at one batch, and so many requests of one row wait."""
        await until(lambda: self.service.batcher.crowded and self.service.batcher.waiting == requests)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with serving(LIMITS) as place:
        yield place


@asynccontextmanager
async def serving(limits: BatchLimits) -> AsyncIterator[Place]:
    Gate.closed, Gate.passes = False, threading.Semaphore(0)
    predictor = Predictor(lambda: Gate(4, 3), CLASSES, (4,), "gate")
    predictor.swap(snapshot_of(Gate(4, 3), 1))
    service = create_inference(predictor, MemoryShelf(), InferenceSettings(batch=limits))
    server = Server(create_app(service), bind("127.0.0.1", 0))
    Gate.closed = True
    async with server.running():
        yield Place(service, server.port)
        Gate.closed = False
        Gate.passes.release(100)


async def test_what_comes_while_the_model_is_at_work_is_answered_in_one_batch(place: Place) -> None:
    first = asyncio.create_task(place.ask())
    await place.holds(0)
    others = [asyncio.create_task(place.ask()) for _ in range(4)]
    await place.holds(4)
    Gate.passes.release(2)
    assert [(await answer)[0] for answer in [first, *others]] == [200] * 5
    assert (place.service.batcher.state.batches, place.service.batcher.state.largest) == (2, 4)


async def test_a_queue_that_is_full_answers_429_with_the_time_to_wait(place: Place) -> None:
    waiting = [asyncio.create_task(place.ask())]
    await place.holds(0)
    waiting += [asyncio.create_task(place.ask()) for _ in range(8)]
    await place.holds(8)
    status, headers = await place.ask()
    assert (status, headers["retry-after"]) == (429, "1")
    Gate.passes.release(10)
    assert [(await answer)[0] for answer in waiting] == [200] * 9
    assert place.service.state.requests == {("infer", 200): 9, ("infer", 429): 1}


async def test_one_who_floods_the_queue_makes_way_for_another(place: Place) -> None:
    flood = [asyncio.create_task(place.ask("127.0.0.2"))]
    await place.holds(0)
    flood += [asyncio.create_task(place.ask("127.0.0.2")) for _ in range(8)]
    await place.holds(8)
    shy = asyncio.create_task(place.ask("127.0.0.3"))
    (pushed,), _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    assert pushed.result()[0] == 429
    Gate.passes.release(2)  # the batch that was under way, and the next
    assert (await shy)[0] == 200
    Gate.passes.release(10)
    assert sorted([(await answer)[0] for answer in flood]) == [200] * 8 + [429]


async def test_requests_of_callers_who_left_are_not_computed(place: Place) -> None:
    first = asyncio.create_task(place.ask())
    await place.holds(0)
    leaving = [await place.send() for _ in range(3)]
    stays = asyncio.create_task(place.ask())
    await place.holds(4)
    for _, writer in leaving:
        writer.transport.abort()
    await until(lambda: place.service.state.requests["infer", 499] == 3)
    Gate.passes.release(2)
    assert [(await first)[0], (await stays)[0]] == [200, 200]
    assert (place.service.batcher.abandoned, place.service.batcher.state.rows) == (3, 2)


async def test_who_waits_beyond_the_time_for_it_is_told_429() -> None:
    limits = BatchLimits(rows=1, queue_rows=8, queue_seconds=0.05, inline_seconds=0.0)
    async with serving(limits) as place:
        first = asyncio.create_task(place.ask())
        await place.holds(0)
        late = asyncio.create_task(place.ask())
        await place.holds(1)
        began = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > began + 0.1)
        Gate.passes.release(1)
        assert [(await first)[0], (await late)[0]] == [200, 429]


async def test_an_answer_is_one_packet(place: Place) -> None:
    Gate.passes.release(1)
    reader, writer = await place.send()
    piece = await reader.read(1 << 16)
    head, _, body = piece.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert json.loads(body)["model_name"] == "gate"
    writer.close()
