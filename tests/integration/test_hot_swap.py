"""A model is replaced again and again under load: nobody notices, and what was replaced is gone."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

import psutil
import pytest
import torch
from torch import Tensor, nn

from concord.apps.inference import InferenceSettings, create_app, create_inference
from concord.apps.serve import Server, bind
from concord.serving.packing import pack_model
from concord.serving.predictor import WARM_ROWS, Predictor, ServedModel
from concord.serving.snapshots import RedisShelf
from concord.site.ports import Snapshot
from served_models import CLASSES, ROW, build_model, marked_snapshot, snapshot_of

CALLERS, SWAPS = 4, 40


class Caller(threading.Thread):
    """Asks without a pause over one connection; notes each version that answered, and what was wrong."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.versions: list[int] = []
        self.wrong: list[str] = []
        self._url = url
        self._stopped = threading.Event()

    def run(self) -> None:
        place = urlsplit(self._url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)
        body = json.dumps({"inputs": [ROW]})
        while not self._stopped.is_set():
            connection.request("POST", "/v1/predict", body)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            if answer.status != 200 or told["predictions"][0]["label"] != "cat":
                self.wrong.append(str(told))
            self.versions.append(told["model"]["version"])
        connection.close()

    def stop(self) -> None:
        self._stopped.set()
        self.join()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


class Noted(Predictor):
    """Remembers the modules that it made, without keeping them alive."""

    def __init__(self) -> None:
        super().__init__(build_model, CLASSES, (4,), "animals", "f00d")
        self.made: list[weakref.ref[nn.Module]] = []

    def prepare(self, snapshot: Snapshot) -> ServedModel:
        model = super().prepare(snapshot)
        self.made.append(weakref.ref(model.module))
        return model


@pytest.mark.anyio
async def test_callers_see_no_failure_and_versions_that_only_rise_and_old_models_go(
    redis_url: str, federation: str
) -> None:
    predictor = Noted()
    ours, trainers = (RedisShelf(redis_url, federation, "N1") for _ in range(2))
    service = create_inference(predictor, ours, InferenceSettings())
    server = Server(create_app(service), bind("127.0.0.1", 0))
    callers = [Caller(server.url) for _ in range(CALLERS)]

    async def publish(version: int) -> None:
        await trainers.publish(marked_snapshot(version))
        await until(lambda: predictor.served is not None and predictor.served.snapshot.version == version)

    async with server.running():
        await publish(1)
        for caller in callers:
            caller.start()
        for version in range(2, SWAPS + 2):
            await publish(version)
            told = [len(caller.versions) for caller in callers]
            await until(lambda told=told: all(len(c.versions) > n for c, n in zip(callers, told, strict=True)))  # type: ignore[misc]
        for caller in callers:
            await asyncio.to_thread(caller.stop)
    for shelf in (ours, trainers):
        await shelf.close()
    for caller in callers:
        assert caller.wrong == []
        assert caller.versions == sorted(caller.versions)
        assert len(set(caller.versions)) > SWAPS / 2
    assert service.state.errors == 0
    assert predictor.state.swaps == SWAPS + 1
    assert [module() for module in predictor.made if module() is not None] == [predictor.current().module]


class Gated(nn.Module):
    """Answers only while `open` is set; notes how many rows it was asked about."""

    open = threading.Event()
    asked: list[int] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        Gated.asked.append(len(inputs))
        Gated.open.wait()
        scores: Tensor = self.layer(inputs)
        return scores


@pytest.mark.anyio
async def test_the_old_model_answers_while_the_new_one_warms_up_for_every_size(redis_url: str, federation: str) -> None:
    Gated.asked.clear()
    Gated.open.set()
    predictor = Predictor(Gated, CLASSES, (4,), "animals", "f00d")
    shelf = RedisShelf(redis_url, federation, "N1")
    service = create_inference(predictor, shelf, InferenceSettings())
    async with service.running():
        await shelf.publish(snapshot_of(Gated(), 1))
        async with asyncio.timeout(5):
            while predictor.served is None:
                await asyncio.sleep(0.001)
        served = predictor.current()
        Gated.asked.clear()
        Gated.open.clear()
        await shelf.publish(snapshot_of(Gated(), 2))
        async with asyncio.timeout(5):
            while not Gated.asked:
                await asyncio.sleep(0.001)  # turns, so the warm-up does not hold it
        assert predictor.current() is served
        Gated.open.set()
        async with asyncio.timeout(5):
            while predictor.current() is served:
                await asyncio.sleep(0.001)
    assert set(Gated.asked) >= {1, *WARM_ROWS}
    await shelf.close()


def large_model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 3))


def test_memory_is_that_of_one_model_after_any_number_of_swaps() -> None:
    predictor = Predictor(large_model, CLASSES, (64,), "large", "f00d")
    blobs = [pack_model(large_model()) for _ in range(2)]
    size = len(blobs[0])
    template = snapshot_of(large_model(), 1)

    def swap(version: int) -> None:
        fresh = bytes(bytearray(blobs[version % 2]))  # as it comes from Redis: memory of its own
        predictor.swap(replace(template, version=version, blob=fresh))
        predictor.predict(torch.zeros(2, 64))

    for version in range(20):
        swap(version)
    gc.collect()
    before = psutil.Process().memory_info().rss
    for version in range(200):
        swap(version)
    gc.collect()
    # Had every second model stayed, it would be a hundred times the size.
    assert psutil.Process().memory_info().rss - before < 8 * size
