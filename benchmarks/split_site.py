"""Sites as separate processes (trainer, exchange) or whole, each pinned to a processor, for measurements."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from concord.mailbox.server import EmbeddedServer

HOST = "127.0.0.1"
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where one site of a measurement listens, and its Redis."""

    name: str
    port: int
    url_of_redis: str
    folder: Path

    @property
    def url(self) -> str:
        """Base address of its HTTP door."""
        return f"http://{HOST}:{self.port}"

    def status(self) -> dict[str, Any]:
        """The answer of its status route."""
        return dict(httpx.get(f"{self.url}/v1/status", timeout=PATIENCE).json())


@dataclass(slots=True)
class Bench:
    """A folder with a job and a secret, and the processes started in it; all end with the `with` block."""

    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def place(self, name: str) -> Place:
        """A site's Redis, started, and a free port for it."""
        folder = self.folder / name
        folder.mkdir()
        redis = self.stack.enter_context(EmbeddedServer(folder))
        return Place(name, free_port(), redis.url, folder)

    def start(
        self, process: str, place: Place, peers: Mapping[str, str], processor: int, *overrides: str
    ) -> psutil.Process:
        """One of the site's processes (`trainer`, `exchange`, `site`), on one processor."""
        words = [sys.executable, "-m", "concord", process, "--job", str(self.folder / "job.yaml")]
        words += ["--site", place.name, "--redis-url", place.url_of_redis, "--port", str(place.port)]
        words += ["--state-dir", str(place.folder / process), "--secret-file", str(self.folder / "secret")]
        words += ["--peers", ",".join(f"{name}={url}" for name, url in peers.items())]
        words += [word for override in overrides for word in ("--set", override)]
        log = (place.folder / f"{process}.log").open("w")
        child = self.stack.enter_context(subprocess.Popen(words, stdout=log, stderr=log))
        self.stack.callback(_end, child, log)
        running = psutil.Process(child.pid)
        running.cpu_affinity([processor % (os.cpu_count() or 1)])
        return running

    def stop(self, process: psutil.Process) -> None:
        """End one process in good order."""
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def bench(folder: Path, job: str) -> Iterator[Bench]:
    """A bench for one job."""
    (folder / "job.yaml").write_text(job)
    (folder / "secret").write_text(os.urandom(32).hex())
    made = Bench(folder)
    with made.stack:
        yield made


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; TimeoutError naming `what` if it does not in good time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (httpx.HTTPError, KeyError):
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{what} within {PATIENCE:.0f} s")


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _end(child: subprocess.Popen[bytes], log: Any) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
    log.close()
