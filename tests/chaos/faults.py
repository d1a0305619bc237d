"""What can go wrong at one site: each fault begins, and returns how it ends (or None if it never does)."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

import redis as redis_client

from chaos.federation import Federation, Site
from concord.errors import SealError
from concord.sealed import unseal

Undo = Callable[[], None]
Begin = Callable[[Federation, Site, random.Random], Undo | None]
HOUR = 3600.0
GRACE = 2.0
"""Seconds until a site that is away is no member any more; a fleet waits ten minutes by default."""
_PERIOD = 0.1
"""Seconds of one turn of a site that is ten times slower: it runs for a tenth of it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: for how long it lasts (seconds, least and most), and what is done, for the docs."""

    name: str
    lasts: tuple[float, float]
    begin: Begin
    text: str


def _signal(pid: int | None, number: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):  # it ended in this very moment
            os.kill(pid, number)


def kill(world: Federation, site: Site, draw: random.Random) -> Undo:
    worker = draw.choice(list(site.workers.values()))
    site.kill(worker)
    return lambda: site.start(worker)


def kill_trainer(world: Federation, site: Site, draw: random.Random) -> Undo:
    site.kill(site.trainer)
    return lambda: site.start(site.trainer)


def pause(world: Federation, site: Site, draw: random.Random) -> Undo:
    pids = [worker.pid for worker in site.workers.values()] + [site.redis.pid]
    pid = draw.choice(pids)
    _signal(pid, signal.SIGSTOP)
    return lambda: _signal(pid, signal.SIGCONT)


def redis_killed(world: Federation, site: Site, draw: random.Random) -> Undo:
    site.kill_redis()
    return site.start_redis


def redis_emptied(world: Federation, site: Site, draw: random.Random) -> Undo:
    site.kill_redis(empty=True)
    return site.start_redis


def redis_full(world: Federation, site: Site, draw: random.Random) -> Undo:
    def limit(size: int) -> None:
        try:
            with redis_client.Redis.from_url(site.redis.url, socket_timeout=5.0) as client:
                client.config_set("maxmemory", size)
        except redis_client.RedisError:
            pass  # it is gone, and when it is back it has no limit

    limit(1)
    return lambda: limit(0)


def _wires(change: Callable[[object, random.Random], None], restore: dict[str, object]) -> Begin:
    def begin(world: Federation, site: Site, draw: random.Random) -> Undo:
        wires = world.around(site.name)
        for wire in wires:
            change(wire, draw)

        def undo() -> None:
            for wire in wires:
                for name, value in restore.items():
                    setattr(wire, name, value)

        return undo

    return begin


def _delay(wire: object, draw: random.Random) -> None:
    wire.delay = draw.uniform(0.05, 0.5)


def _loss(wire: object, draw: random.Random) -> None:
    wire.cut = draw.uniform(0.1, 0.5)


def _narrow(wire: object, draw: random.Random) -> None:
    wire.rate = draw.uniform(5e3, 50e3)


def partition(world: Federation, site: Site, draw: random.Random) -> Undo:
    way = draw.choice(("broken", "held"))
    return _wires(lambda wire, _: setattr(wire, way, True), {way: False})(world, site, draw)


def disk_full(world: Federation, site: Site, draw: random.Random) -> Undo:
    worker = site.trainer
    pid, hard = worker.pid, resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def limit(size: int) -> None:
        if pid is not None and pid == worker.pid:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    limit(draw.choice((0, 1000)))
    return lambda: limit(hard)


def read_only(world: Federation, site: Site, draw: random.Random) -> Undo:
    site.state_dir.chmod(0o555)
    return lambda: site.state_dir.chmod(0o755)


def torn_checkpoint(world: Federation, site: Site, draw: random.Random) -> Undo:
    site.kill(site.trainer)
    files = sorted(site.state_dir.glob("checkpoint-*.sealed"))
    if len(files) >= 2 and _whole(files[-2]):  # one whole file must stay: without any, an operator has to decide
        blob = bytearray(files[-1].read_bytes())
        if draw.random() < 0.5:
            del blob[draw.randrange(len(blob)) :]
        else:
            blob[draw.randrange(len(blob))] ^= 1 << draw.randrange(8)
        files[-1].write_bytes(blob)
    return lambda: site.start(site.trainer)


def _whole(path: os.PathLike[str]) -> bool:
    try:
        with open(path, "rb") as file:
            unseal(file.read())
    except SealError:
        return False
    return True


def clock_jump(world: Federation, site: Site, draw: random.Random) -> Undo:
    jump = draw.choice((-HOUR, -120.0, 120.0, HOUR))
    site.clock.move(jump)
    return lambda: site.clock.move(-jump)


def slow(world: Federation, site: Site, draw: random.Random) -> Undo:
    worker, over = site.trainer, threading.Event()

    def limp() -> None:
        while not over.wait(_PERIOD / 10):
            _signal(worker.pid, signal.SIGSTOP)
            over.wait(_PERIOD * 9 / 10)
            _signal(worker.pid, signal.SIGCONT)

    thread = threading.Thread(target=limp, daemon=True)
    thread.start()

    def undo() -> None:
        over.set()
        thread.join()

    return undo


def _leave_for_good(world: Federation, site: Site) -> threading.Timer:
    """All of it ends now; once the grace is over, the membership document has it no more."""
    site.retire()
    timer = threading.Timer(GRACE, world.leave, [site.name])
    timer.daemon = True
    timer.start()
    return timer


def gone(world: Federation, site: Site, draw: random.Random) -> None:
    _leave_for_good(world, site)


def late(world: Federation, site: Site, draw: random.Random) -> Undo:
    timer = _leave_for_good(world, site)
    for each in world.sites.values():
        each.clock.move(HOUR)

    def back() -> None:
        timer.join()
        world.rejoin(site.name)
        site.start_redis()
        for worker in site.workers.values():
            site.start(worker)

    return back


def twin(world: Federation, site: Site, draw: random.Random) -> Undo:
    other = world.twin(site.name)
    for worker in other.workers.values():
        other.start(worker)

    def undo() -> None:
        for worker in other.workers.values():
            other.kill(worker)
        other.redis.kill()

    return undo


KINDS = {
    kind.name: kind
    for kind in (
        Kind("kill", (0.2, 2.0), kill, "`kill -9` of one of the site's processes, started again later"),
        Kind("kill-trainer", (0.0, 1.0), kill_trainer, "the same of the one that trains"),
        Kind("pause", (0.5, 4.0), pause, "SIGSTOP, later SIGCONT, of one of its processes or its Redis"),
        Kind("redis-killed", (0.2, 2.0), redis_killed, "its Redis ended with signal 9, back with what was on disk"),
        Kind("redis-emptied", (0.2, 2.0), redis_emptied, "the same, but back empty"),
        Kind("redis-full", (1.0, 4.0), redis_full, "its Redis refuses every write (`maxmemory 1`)"),
        Kind("delay", (2.0, 5.0), _wires(_delay, {"delay": 0.0}), "each piece of data 0.05 to 0.5 s later"),
        Kind(
            "loss",
            (2.0, 5.0),
            _wires(_loss, {"cut": 0.0}),
            "10 to 50 % of pieces end their connection",
        ),
        Kind("narrow", (2.0, 5.0), _wires(_narrow, {"rate": None}), "5 to 50 kB/s"),
        Kind("partition", (1.0, 4.0), partition, "its wires refuse, or hold everything back, and heal"),
        Kind("disk-full", (1.0, 4.0), disk_full, "no file grows beyond 0 or 1,000 bytes (RLIMIT_FSIZE)"),
        Kind("read-only", (1.0, 4.0), read_only, "its state folder cannot be written"),
        Kind(
            "torn-checkpoint",
            (0.0, 1.0),
            torn_checkpoint,
            "trainer killed, newest checkpoint cut or a bit flipped",
        ),
        Kind("clock-jump", (2.0, 5.0), clock_jump, "its wall clock two minutes or an hour off, and back"),
        Kind("slow", (2.0, 6.0), slow, "its trainer gets a tenth of the time (SIGSTOP in turns)"),
        Kind("two-of-one-name", (2.0, 5.0), twin, "a second site of its name, empty, joins in; later killed"),
        Kind(
            "returns-late",
            (4.0, 8.0),
            late,
            "all killed, out of the members after 2 s; back an hour later by the clocks",
        ),
        Kind("gone", (0.0, 0.0), gone, "all of it killed for good, out of the members after 2 s"),
    )
}
ABSENCES = ("gone", "returns-late")
"""At most one of these in a run: of a ring of four, two that are away leave two halves."""
