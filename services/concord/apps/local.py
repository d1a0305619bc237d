"""A whole federation on one machine: each site a real process with its own Redis and real HTTP on loopback.

Site processes are forked from one warmed-up parent, so that eight of them start in the time of one, and are
restarted when they die, as a cluster would. Must not know terminals or tables.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

from concord import logs
from concord.errors import (
    CertificateError,
    ConcordError,
    EnvironmentProblem,
    JobError,
    SplitError,
    TaskError,
    TopologyError,
)
from concord.job import Job
from concord.mailbox.server import EmbeddedServer
from concord.settings import Secret, Settings

HOST = "127.0.0.1"
BASE_PORT = 8100
_GRACE = 10.0
"""Seconds a site has to leave a checkpoint and go before it is killed."""
_RESTART_DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds before a dead process is started again, by how often it died in a row; the last repeats."""
_HEALTHY_AFTER = 20.0
"""Seconds a process must live for its earlier deaths to be forgotten."""
_NICENESS = 10
"""How far sites stand back, so that `concord predict` and all else on this machine need not queue behind eight."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A process of one site, `site` or `redis`, ended on its own and was, or will be, started again."""

    at: float
    site: str
    process: str


@dataclass(slots=True)
class _Cell:
    """One site's two processes on this machine, and when to start what is missing."""

    settings: Settings
    redis: EmbeddedServer
    process: ForkServerProcess | None = None
    verdict: Connection | None = None
    deaths: int = 0
    started_at: float = 0.0
    start_at: float = 0.0


_VERDICTS = (TaskError, SplitError, TopologyError, CertificateError, JobError, EnvironmentProblem)
"""The kinds of error for which a site can never run, the narrower first."""


class LocalFleet:
    """All sites of a job as local processes; a context manager that leaves nothing behind.

    `urls` maps each site to its address. `state_dir`, if given, keeps checkpoints for a later run; otherwise they
    go when the fleet stops. Who knows `admin_token` may pin and promote models at the sites; without one nobody may.
    Whatever is not each site's own is as `common` says.
    """

    def __init__(
        self,
        job: Job,
        base_port: int = BASE_PORT,
        state_dir: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        admin_token: Secret | None = None,
        common: Settings | None = None,
    ) -> None:
        self._common = common or Settings()
        self._job = job
        self._admin_token = admin_token
        self._clock = clock
        self._context = multiprocessing.get_context("forkserver")
        self._directory = Path(tempfile.mkdtemp(prefix="concord-"))
        self.secret = Secret.from_text(secrets.token_hex(32))
        self.urls = {name: f"http://{HOST}:{base_port + i}" for i, name in enumerate(job.site_names)}
        self.incidents: list[Incident] = []
        graph = job.topology_graph()
        self._cells = {
            name: self._cell(name, base_port + i, graph.neighbours(name), state_dir)
            for i, name in enumerate(job.site_names)
        }

    def _cell(self, site: str, port: int, neighbours: tuple[str, ...], state_dir: Path | None) -> _Cell:
        directory = self._directory / site
        directory.mkdir()
        redis = EmbeddedServer(directory)
        settings = replace(
            self._common,
            site=site,
            redis_url=redis.url,
            state_dir=(state_dir or self._directory / "state") / site,
            host=HOST,
            port=port,
            peers={neighbour: self.urls[neighbour] for neighbour in neighbours},
            secret=self.secret,
            admin_token=self._admin_token,
        )
        return _Cell(settings, redis)

    # --- life ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            for cell in self._cells.values():
                _check_port_free(cell.settings.port)
            self._context.set_forkserver_preload(["concord.apps.warm"])
            for cell in self._cells.values():
                cell.redis.start()
                self._start(cell)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _start(self, cell: _Cell) -> None:
        verdict, child_end = self._context.Pipe(duplex=False)
        log = self._directory / f"{cell.settings.site}.log"
        cell.process = self._context.Process(
            target=_run_site, args=(self._job, cell.settings, log, child_end), name=cell.settings.site
        )
        cell.process.start()
        child_end.close()
        cell.verdict = verdict
        cell.started_at = self._clock()

    def stop(self) -> None:
        """Ask every site to leave a checkpoint and go; kill what does not; remove every file."""
        running = [cell.process for cell in self._cells.values() if cell.process is not None]
        for process in running:
            process.terminate()
        deadline = self._clock() + _GRACE
        for process in running:
            process.join(max(0.0, deadline - self._clock()))
            if process.is_alive():
                process.kill()
                process.join()
        for cell in self._cells.values():
            cell.redis.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    # --- supervision -----------------------------------------------------------------------------------------

    def supervise(self) -> None:
        """Note what died and start it again when its time has come; call this a few times a second.

        Raises the site's own error if it cannot run at all: a wrong job or an unfit machine does not heal.
        """
        now = self._clock()
        for site, cell in self._cells.items():
            if cell.redis.pid is None:
                self.incidents.append(Incident(now, site, "redis"))
                cell.redis.start()
            if cell.process is not None and cell.process.exitcode is not None:
                self._bury(site, cell, now)
            if cell.process is None and now >= cell.start_at:
                self._start(cell)

    def _bury(self, site: str, cell: _Cell, now: float) -> None:
        _raise_verdict(site, cell.verdict)
        self.incidents.append(Incident(now, site, "site"))
        cell.process = None
        cell.deaths = 0 if now - cell.started_at > _HEALTHY_AFTER else cell.deaths
        cell.start_at = now + _RESTART_DELAYS[min(cell.deaths, len(_RESTART_DELAYS) - 1)]
        cell.deaths += 1

    def pids(self, site: str) -> dict[str, int | None]:
        """The process ids of one site: `site` and `redis`."""
        cell = self._cells[site]
        return {"site": cell.process.pid if cell.process else None, "redis": cell.redis.pid}

    def log(self, site: str) -> str:
        """What a site's process has written so far."""
        path = self._directory / f"{site}.log"
        return path.read_text(errors="replace") if path.exists() else ""


def _check_port_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise EnvironmentProblem(
                f"port {port} on {HOST} is in use ({error.strerror}); "
                "stop what listens there or choose other ports with --base-port"
            ) from error


def _raise_verdict(site: str, verdict: Connection | None) -> None:
    """Raise what a site process said about why it can never run, if it said anything."""
    if verdict is None:
        return
    try:
        said = verdict.recv() if verdict.poll() else None
    except EOFError:
        said = None
    finally:
        verdict.close()
    if said is not None:
        kind, message = said
        raise kind(f"site {site}: {message}")


def _run_site(job: Job, settings: Settings, log_file: Path, verdict: Connection) -> None:
    """The main function of a forked site process."""
    os.nice(_NICENESS)
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _write_to(log_file)
    logs.configure(settings.log_format, settings.log_level, site=settings.site, process="site")
    from concord.apps import combined

    try:
        combined.run(job, settings)
    except (JobError, EnvironmentProblem) as error:
        verdict.send((next(kind for kind in _VERDICTS if isinstance(error, kind)), str(error)))
        sys.exit(3)
    except ConcordError as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(1)


def _end_with_parent() -> None:
    """Have SIGTERM sent to this process when the fleet's own process is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _write_to(log_file: Path) -> None:
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
