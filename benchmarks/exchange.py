"""How long an update of a given size takes from one trainer to another, through Redis, HTTP and Redis.

Two trainers' posts and two exchanges, each a process of its own as deployed. In turns, the second trainer answers
each update with one of its own, so a round trip is two deliveries one after the other; at once, both send and each
sends its next when the other's arrives.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.split_site import Place, bench, wait_until
from concord.apps.background import Background, Ready
from concord.apps.trainer import beside
from concord.consensus.algorithm import EdgeTerms, PartLayout
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
WARM_UP = 3
_LOOK = 0.0002
"""Seconds between two looks for news, as a trainer has them between two local steps."""


def measure(elements: int, updates: int) -> tuple[float, float]:
    """Median seconds of one delivery in turns, and MB/s of both ways together at once; `elements` float32 each."""
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder), JOB) as made:
        a, b = made.place("A"), made.place("B")
        made.start("exchange", a, {"B": b.url}, 0)
        made.start("exchange", b, {"A": a.url}, 1)
        for place in (a, b):
            wait_until(lambda url=place: url.status()["exchange"]["mailbox"] == "ok", f"the exchange of {place.name}")
        in_turns = _play(a, b, elements, updates, at_once=False)
        at_once = _play(a, b, elements, updates, at_once=True)
    return statistics.median(in_turns) / 2, 2 * elements * 4 / 1e6 / statistics.median(at_once)


def _play(a: Place, b: Place, elements: int, updates: int, *, at_once: bool) -> list[float]:
    """Seconds of each exchange there and back."""
    context = multiprocessing.get_context("spawn")
    result, child_end = context.Pipe(duplex=False)
    ends = [
        context.Process(target=_trainer, args=(a, "B", elements, updates, True, child_end)),
        context.Process(target=_trainer, args=(b, "A", elements, updates, at_once, None)),
    ]
    for end in ends:
        end.start()
    seconds: list[float] = result.recv()
    for end in ends:
        end.join()
    return seconds


def _trainer(
    place: Place, neighbour: str, elements: int, updates: int, begins: bool, result: Connection | None
) -> None:
    """One trainer: sends its first update if it `begins`, and its next whenever one arrives."""
    torch.set_num_threads(1)
    mailbox = RedisMailbox(place.url_of_redis, FEDERATION, place.name)
    post = Post(place.name, mailbox, MemoryShelf())
    stopped = threading.Event()

    async def carry(ready: Ready, stop: asyncio.Event) -> None:
        async with beside(post.run()):
            ready()
            await stop.wait()
        await mailbox.close()

    background = Background(carry, on_exit=stopped.set)
    background.start(30.0)
    # A life above the one before: the mailboxes still hold its updates.
    incarnation = time.time_ns() // 1_000_000
    layout = {"message": PartLayout("float32", elements)}
    post.announce(
        EdgeTable(FEDERATION, "print", "ecl", incarnation, layout, {neighbour: Edge(1, TERMS)}), {neighbour: None}
    )
    values = torch.randn(elements)
    seconds = []
    if begins:
        post.send([_update(place.name, neighbour, incarnation, 1, values)])
    for sequence in range(1, updates + WARM_UP + 1):
        began = time.perf_counter()
        _await(post, sequence)
        seconds.append(time.perf_counter() - began)
        post.send([_update(place.name, neighbour, incarnation, sequence + begins, values)])
    if result is not None:
        result.send(seconds[WARM_UP:])
    post.drain(5.0)
    time.sleep(0.5)  # the neighbour still waits for the last one
    background.stop(30.0)


def _await(post: Post, sequence: int) -> None:
    while True:
        if any(update.header.stamp.sequence >= sequence for update in post.take()):
            return
        time.sleep(_LOOK)


def _update(sender: str, receiver: str, incarnation: int, sequence: int, values: torch.Tensor) -> Update:
    header = Header(
        federation=FEDERATION,
        fingerprint="print",
        sender=sender,
        receiver=receiver,
        stamp=Stamp(1, incarnation, sequence),
        step=sequence,
        round=sequence,
        algorithm="ecl",
        penalty=TERMS.penalty,
        averaging=TERMS.averaging,
        sent_at=0.0,
    )
    return Update(header, {"message": values})
