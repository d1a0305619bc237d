"""A small federation as real processes, each of which can be killed, stopped and started again by itself.

Odd sites are split into trainer, exchange and inference; even ones are a whole `site`. Each has its own real Redis.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from chaos.wallclock import Clock
from chaos.wires import HOST, Wire, Wires
from chaos.worker import work
from concord.job import Job
from concord.mailbox.server import EmbeddedServer, ServerOptions
from concord.settings import Secret, Settings

PARTS = ("trainer", "exchange", "inference")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["chaos.worker", "concord.apps.warm"])
_RESTART = 0.5
"""Seconds before a process that ended by itself is started again, as a cluster would."""
JOIN_TIMEOUT = 3.0
SECRET = Secret(b"a secret that all sites of the chaos share")


@dataclass(slots=True)
class Worker:
    """One process of a site and the settings to start it with."""

    kind: str
    settings: Settings
    process: ForkServerProcess | None = None
    wanted: bool = True
    died_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self.process.pid if self.process is not None and self.process.exitcode is None else None


@dataclass(slots=True)
class Site:
    """One site: its processes, its Redis, its clock, its state."""

    name: str
    job: Job
    folder: Path
    redis: EmbeddedServer
    clock: Clock
    workers: dict[str, Worker] = field(default_factory=dict)
    redis_wanted: bool = True
    emptied: int = 0
    """How often its Redis was ended: what it held last may be gone."""
    deaths: list[str] = field(default_factory=list)
    """Processes that ended by themselves."""

    @property
    def present(self) -> bool:
        """Whether it is meant to run."""
        return any(worker.wanted for worker in self.workers.values())

    @property
    def trainer(self) -> Worker:
        """The process that trains."""
        return self.workers.get("trainer") or self.workers["site"]

    @property
    def door(self) -> int:
        """The port where it tells its status and takes in updates."""
        return (self.workers.get("exchange") or self.workers["site"]).settings.port

    @property
    def state_dir(self) -> Path:
        """Where its checkpoints are."""
        return self.trainer.settings.state_dir

    def start(self, worker: Worker) -> None:
        """Run one of its processes, unless it runs."""
        worker.wanted, worker.died_at = True, None
        if worker.pid is None:
            log = self.folder / f"{worker.kind}.log"
            worker.process = _CONTEXT.Process(
                target=work, args=(worker.kind, self.job, worker.settings, log, self.clock.path), daemon=True
            )
            worker.process.start()

    def kill(self, worker: Worker) -> None:
        """End one of its processes as a crash would."""
        worker.wanted = False
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGKILL)
            worker.process.join(10)

    def kill_redis(self, empty: bool = False) -> None:
        """End its Redis as a crash would; with `empty`, what it kept on disk goes too."""
        self.redis_wanted = False
        self.redis.kill()
        self.emptied += 1
        if empty:
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)

    def start_redis(self) -> None:
        """Run its Redis, unless it runs."""
        self.redis_wanted = True
        self.redis.start()

    def retire(self) -> None:
        """End all of it as a crash would."""
        for worker in self.workers.values():
            self.kill(worker)
        self.kill_redis()

    def tend(self, now: float) -> None:
        """Start again what ended by itself."""
        if self.redis_wanted and self.redis.pid is None:
            self.deaths.append("redis")
            self.redis.start()
        for worker in self.workers.values():
            if worker.wanted and worker.pid is None:
                if worker.died_at is None:
                    worker.died_at = now
                    self.deaths.append(f"{worker.kind} ({worker.process.exitcode if worker.process else '?'})")
                elif now - worker.died_at >= _RESTART:
                    self.start(worker)


@dataclass(slots=True)
class Federation:
    """All sites of one run, and the wires between them: `wires[a, b]` carries what `a` calls `b` for."""

    job: Job
    folder: Path
    sites: dict[str, Site]
    wires: dict[tuple[str, str], Wire]
    spare_port: int
    away: set[str] = field(default_factory=set)
    """Sites that were taken out of the membership document."""
    _version: int = 0
    _epochs: dict[str, int] = field(default_factory=dict)

    def leave(self, name: str) -> None:
        """Take a site out of the membership document, as a fleet does after its grace."""
        self.away.add(name)
        self.write_members()

    def rejoin(self, name: str) -> None:
        """Put it in again; its edges have a later epoch."""
        if name in self.away:
            self.away.discard(name)
            self._epochs[name] = self._epochs.get(name, 1) + 1
            self.write_members()

    def write_members(self) -> None:
        """The document as it now should be, replaced in one piece."""
        self._version += 1
        here = [name for name in self.sites if name not in self.away]
        edges = [
            {"sites": [a, b], "epoch": max(self._epochs.get(a, 1), self._epochs.get(b, 1))}
            for a, b in self.wires
            if a < b and a in here and b in here
        ]
        sites = {name: {"url": f"http://{HOST}:{self.sites[name].door}"} for name in here}
        written = self.folder / "members.tmp"
        written.write_text(json.dumps({"version": self._version, "sites": sites, "edges": edges}))
        written.replace(self.folder / "members.json")

    def neighbours(self, name: str) -> tuple[str, ...]:
        """Who exchanges with a site, as the membership document says."""
        return tuple(other for other in self.job.topology_graph().neighbours(name) if other not in self.away)

    def around(self, name: str) -> list[Wire]:
        """Every wire to or from a site."""
        return [wire for ends, wire in self.wires.items() if name in ends]

    def tend(self) -> None:
        """Start again what ended by itself; call this a few times a second."""
        now = time.monotonic()
        for site in self.sites.values():
            site.tend(now)

    def twin(self, name: str) -> Site:
        """A second site of that name, with a Redis and a state of its own, not yet started."""
        twin = self._cell(name, self.folder / f"{name}-twin", whole=True, port=self.spare_port)
        twin.redis.start()
        return twin

    def _cell(self, name: str, folder: Path, whole: bool, port: int) -> Site:
        folder.mkdir(exist_ok=True)
        site = Site(
            name,
            self.job,
            folder,
            EmbeddedServer(folder, ServerOptions(append_only=True, start_timeout=30.0)),
            Clock(folder / "clock"),
        )
        base = Settings(
            site=name,
            redis_url=site.redis.url,
            state_dir=folder / "state",
            peers={other: f"http://{HOST}:{self.wires[name, other].port}" for one, other in self.wires if one == name},
            secret=SECRET,
            topology=self.folder / "members.json",
            join_timeout=JOIN_TIMEOUT,
            threads=1,
        )
        for place, kind in enumerate(("site",) if whole else PARTS):
            site.workers[kind] = Worker(kind, replace(base, port=port + place))
        return site


def build(job: Job, folder: Path, seed: int, layout: Mapping[str, bool] | None = None) -> Federation:
    """All sites, none started. `layout` says of each whether it is whole; by default every second one is."""
    names = job.site_names
    pairs = [(a, b) for a in names for b in job.topology_graph().neighbours(a)]
    first = free_ports(4 * len(names) + len(pairs) + 1)
    whole = layout or {name: place % 2 == 1 for place, name in enumerate(names)}
    doors = {name: first + 4 * place for place, name in enumerate(names)}
    door_offset = {name: 0 if whole[name] else PARTS.index("exchange") for name in names}
    wires = {
        (a, b): Wire(first + 4 * len(names) + place, doors[b] + door_offset[b], draw=random.Random(f"{seed}{a}{b}"))
        for place, (a, b) in enumerate(pairs)
    }
    federation = Federation(job, folder, {}, wires, first + 4 * len(names) + len(pairs))
    for name in names:
        federation.sites[name] = federation._cell(name, folder / name, whole[name], doors[name])
    federation.write_members()
    return federation


@contextmanager
def running(federation: Federation, without: str | None = None) -> Iterator[Federation]:
    """The federation runs, but for one site if so said; nothing of it is left at the end."""
    if without is not None:
        federation.leave(without)
    with ExitStack() as stack, Wires(federation.wires.values()):
        for site in federation.sites.values():
            stack.callback(_end, site)
            if site.name == without:
                site.retire()
                continue
            site.start_redis()
            for worker in site.workers.values():
                site.start(worker)
        yield federation


def _end(site: Site) -> None:
    for worker in site.workers.values():
        site.kill(worker)
    site.redis.kill()


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free now, looked for from a place of chance."""
    runs = range(10000, 20000, 64)
    for first in random.sample(runs, len(runs)):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind((HOST, port))
        except OSError:
            continue
        return first
    raise OSError(f"no run of {count} free ports")
