"""How long an update of a given size takes from one trainer to another, through Redis, HTTP and Redis.

Both trainers' posts live here; the two exchanges are processes of their own, as deployed. In the first part one
update at a time goes from A to B; in the second both send at once and each sends its next when one arrives.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.split_site import Bench, Place, bench, wait_until
from concord.consensus.algorithm import EdgeTerms
from concord.mailbox.redis import RedisMailbox
from concord.serving.snapshots import MemoryShelf
from concord.site.edges import Edge, EdgeTable
from concord.site.post import Post
from concord.wire.messages import Header, Stamp, Update

FEDERATION = "exchange"
JOB = f"""\
name: {FEDERATION}
task: digits
sites: [A, B]
topology: ring
split: {{kind: iid}}
"""
TERMS = EdgeTerms(penalty=1.0, averaging=1.0)


def measure(elements: int, updates: int) -> tuple[list[float], float]:
    """Seconds of each update from A to B, and MB/s while both send; an update has `elements` float32."""
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder), JOB) as made:
        a, b = made.place("A"), made.place("B")
        made.start("exchange", a, {"B": b.url}, 0)
        made.start("exchange", b, {"A": a.url}, 1)
        return asyncio.run(_measure(a, b, elements, updates))


async def _measure(a: Place, b: Place, elements: int, updates: int) -> tuple[list[float], float]:
    ends = [_End(a, "B", elements), _End(b, "A", elements)]
    tasks = [asyncio.create_task(end.post.run()) for end in ends]
    await asyncio.sleep(0.1)
    for end in ends:
        end.announce()
    await asyncio.to_thread(wait_until, lambda: a.status()["exchange"]["mailbox"] == "ok", "exchange A")
    await asyncio.to_thread(wait_until, lambda: b.status()["exchange"]["mailbox"] == "ok", "exchange B")
    try:
        latencies = [await ends[0].deliver_to(ends[1]) for _ in range(updates + 2)][2:]
        began = time.perf_counter()
        await asyncio.gather(
            *(end.deliver_many(other, updates) for end, other in (ends, ends[::-1])),
        )
        seconds = time.perf_counter() - began
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for end in ends:
            await end.mailbox.close()
    return latencies, 2 * updates * elements * 4 / seconds / 1e6


class _End:
    """One trainer's side of the edge."""

    def __init__(self, place: Place, neighbour: str, elements: int) -> None:
        self._name, self._neighbour = place.name, neighbour
        self.mailbox = RedisMailbox(place.redis.url, FEDERATION, place.name)
        self.post = Post(place.name, self.mailbox, MemoryShelf())
        self._values = torch.randn(elements)
        self._sequence = 0

    def announce(self) -> None:
        size = {"message": self._values.numel()}
        table = EdgeTable(FEDERATION, "print", "ecl", 1, size, {self._neighbour: Edge(1, TERMS)})
        self.post.announce(table, {self._neighbour: None})

    async def deliver_to(self, other: _End) -> float:
        began = time.perf_counter()
        self._send()
        await other.receive(self._sequence)
        return time.perf_counter() - began

    async def deliver_many(self, other: _End, updates: int) -> None:
        for _ in range(updates):
            await self.deliver_to(other)

    async def receive(self, sequence: int) -> None:
        while True:
            for update in self.post.take():
                if update.header.stamp.sequence == sequence:
                    return
            await asyncio.sleep(0.0005)

    def _send(self) -> None:
        self._sequence += 1
        header = Header(
            federation=FEDERATION,
            fingerprint="print",
            sender=self._name,
            receiver=self._neighbour,
            stamp=Stamp(1, 1, self._sequence),
            step=self._sequence,
            round=self._sequence,
            algorithm="ecl",
            penalty=TERMS.penalty,
            averaging=TERMS.averaging,
            sent_at=0.0,
        )
        self.post.send([Update(header, {"message": self._values})])


def median_ms(seconds: list[float]) -> float:
    """The median, in milliseconds."""
    return 1000 * statistics.median(seconds)


__all__ = ["Bench", "measure", "median_ms"]
