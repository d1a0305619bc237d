"""`make swaps`: latency while the model is replaced, against latency while it is not, at a real server under full load.

Periods with and without swaps alternate, so that whatever else the machine does falls on both alike. Callers and
publisher are processes of their own, as they would be: they take part of the processors, but not the interpreter.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from uvloop import new_event_loop

from benchmarks.swaps_models import KINDS
from concord.apps.inference import InferenceSettings, create_app, create_inference
from concord.apps.serve import Server, bind
from concord.mailbox.server import EmbeddedServer
from concord.serving.predictor import Predictor
from concord.serving.snapshots import RedisShelf

OUT = Path("out/swaps.json")
FEDERATION = "swaps"
PERIOD = 50
"""Swaps of one period."""
PATIENCE = 60.0
"""Seconds that a trainer beside has to begin."""
CLASSES = tuple("0123456789")


@dataclass(slots=True)
class Period:
    """What the callers saw meanwhile; `stall` is the longest time in which the server's loop did nothing, in s."""

    swaps: int
    latencies: list[float] = field(default_factory=list)
    stall: float = 0.0

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return 1e3 * sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Callers:
    """The process of the callers: tells each answer's latency, and what went wrong."""

    def __init__(self, url: str, row: tuple[int, ...], threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.swaps_callers", url, json.dumps(row), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, word: str) -> dict[str, Any]:
        """`begin` a period, or `end` it, which gives what was seen."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        self._process.communicate("quit\n", timeout=30)


class Publisher:
    """The process that publishes."""

    def __init__(self, redis_url: str, kind: str) -> None:
        command = [sys.executable, "-m", "benchmarks.swaps_publisher", redis_url, FEDERATION, kind]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)

    def publish(self, version: int) -> None:
        """Have it published; returns at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{version}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)


@asynccontextmanager
async def watched_loop(period: Period) -> AsyncIterator[None]:
    """Notes the longest stretch by which the loop was late."""

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            period.stall = max(period.stall, now - last - 0.001)
            last = now

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()


async def measure(
    name: str, swaps: int, gap: float, threads: int, redis_url: str
) -> tuple[list[Period], dict[str, object]]:
    """Periods without and with swaps in turn, until there were as many swaps as wanted."""
    kind = KINDS[name]
    shelf = RedisShelf(redis_url, FEDERATION, "N1")
    service = create_inference(Predictor(kind.build, CLASSES, kind.row, "model"), shelf, InferenceSettings())
    server = Server(create_app(service), bind("127.0.0.1", 0))
    publisher = Publisher(redis_url, name)
    periods: list[Period] = []
    version = 0

    async def publish() -> None:
        nonlocal version
        version += 1
        publisher.publish(version)
        while service.watcher.served is None or service.watcher.served.version != version:
            await service.watcher.look()

    async with server.running():
        await publish()
        callers = await asyncio.to_thread(Callers, server.url, kind.row, threads)
        memory, failures, falls = [_memory()], 0, 0
        for index in range(2 * swaps // PERIOD + 1):  # the first is to warm up
            period = Period(0 if index % 2 else PERIOD)
            await asyncio.to_thread(callers.ask, "begin")
            async with watched_loop(period):
                for _ in range(PERIOD):
                    if period.swaps:
                        await publish()
                    await asyncio.sleep(gap)
            seen = await asyncio.to_thread(callers.ask, "end")
            period.latencies = seen["latencies"]
            failures += seen["failures"]
            falls += seen["falls"]
            memory.append(_memory())
            if index:
                periods.append(period)
        await asyncio.to_thread(callers.close)
    publisher.close()
    await shelf.close()
    return periods, {"failures": failures, "versions_that_fell": falls, "memory": memory}


def _memory() -> float:
    gc.collect()
    return round(psutil.Process().memory_info().rss / 2**20, 1)


def report(name: str, periods: list[Period], seen: dict[str, object]) -> dict[str, Any]:
    """Print and return what was measured."""
    rows: dict[str, dict[str, float]] = {}
    for label, wanted in (("without", False), ("with swaps", True)):
        group = [period for period in periods if bool(period.swaps) is wanted]
        rows[label] = {
            "requests": sum(len(period.latencies) for period in group),
            **{f"p{share}": statistics.median(p.percentile(share / 100) for p in group) for share in (50, 99)},
            "longest": max(1e3 * max(period.latencies) for period in group),
            "stall": max(1e3 * period.stall for period in group),
        }
    ratio = rows["with swaps"]["p99"] / rows["without"]["p99"]
    print(f"{name}: {sum(period.swaps for period in periods)} swaps, load {os.getloadavg()[0]:.1f}")
    for label, row in rows.items():
        print(
            f"  {label:10}  {row['requests']:7.0f} requests, p50 {row['p50']:.2f}, p99 {row['p99']:.2f}, "
            f"longest {row['longest']:.1f} ms; longest stall of the loop {row['stall']:.1f} ms"
        )
    print(f"  p99 with swaps is {ratio:.2f} times that without; {seen}")
    return {"model": name, "ratio": ratio, "rows": rows, **seen}


async def _first_snapshot(url: str) -> None:
    """Return once the trainer beside has published a model, so it trains."""
    shelf = RedisShelf(url, "beside", "N1")
    try:
        await shelf.wait(await shelf.ticket(), PATIENCE)
        if await shelf.newest_version() is None:
            raise TimeoutError(f"the trainer beside published no model within {PATIENCE:g} s")
    finally:
        await shelf.close()


@contextmanager
def beside(trainer: str | None, folder: Path) -> Iterator[None]:
    """A trainer on the same processors, if wanted: `plain`, or with a niceness."""
    if trainer is None:
        yield
        return
    (folder / "job.yaml").write_text(
        "name: beside\ntask: {name: digits, options: {model: cnn}}\nsites: 2\nsplit: {kind: iid}\n"
        "training: {rounds: null, pace: 0, local_steps: 16, learning_rate: 0.05}\n"
    )
    nice = [] if trainer == "plain" else ["nice", "-n", trainer]
    (folder / "redis").mkdir()
    with EmbeddedServer(folder / "redis") as redis:
        places = ["--redis-url", redis.url, "--state-dir", str(folder / "state"), "--port", "0", "--insecure"]
        command = [*nice, sys.executable, "-m", "concord", "trainer", "--job", str(folder / "job.yaml"), "--site", "N1"]
        process = subprocess.Popen([*command, *places, "--threads", "2"])
        try:
            asyncio.run(_first_snapshot(redis.url))
            yield
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(KINDS), help="digits, cnn")
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--gap", type=float, help="seconds between two (default: 0.1 for digits, 0.25 for cnn)")
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--trainer", help="a trainer beside it: 'plain', or its niceness")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: list[dict[str, Any]] = []

    for name in given.models:
        gap = KINDS[name].gap if given.gap is None else given.gap
        with (
            tempfile.TemporaryDirectory(prefix="swaps-") as place,
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            folder = Path(place)
            (folder / "serving").mkdir()
            with EmbeddedServer(folder / "serving") as redis, beside(given.trainer, folder):
                periods, seen = runner.run(measure(name, given.swaps, gap, given.callers, redis.url))
            results.append({"gap": gap, "trainer": given.trainer, **report(name, periods, seen)})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results, indent=2) + "\n")
    bad = [
        result["model"]
        for result in results
        if result["failures"] or result["versions_that_fell"] or result["ratio"] > 2
    ]
    raise SystemExit(f"not as it should be: {', '.join(map(str, bad))}" if bad else 0)


if __name__ == "__main__":
    main()
