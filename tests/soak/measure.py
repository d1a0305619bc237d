"""What is measured of running processes: resident memory, file descriptors, a Redis's memory, an answer's time."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx
import psutil
import redis

INTERVAL = 1.0
Series = tuple[list[float], list[float]]


@dataclass(slots=True)
class Recorder:
    """Measures in a thread of its own, from `start` to `stop`. `pids` names the processes as they are now; a process
    that was started again begins a series of its own."""

    pids: Callable[[], Mapping[str, int]]
    redis_urls: Mapping[str, str]
    urls: Mapping[str, str]
    interval: float = INTERVAL
    series: defaultdict[str, Series] = field(default_factory=lambda: defaultdict(lambda: ([], [])))
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        clients = {name: redis.Redis.from_url(url, socket_timeout=2.0) for name, url in self.redis_urls.items()}
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while not self._over.wait(self.interval):
                for name, pid in self.pids().items():
                    self._process(name, pid)
                for name, one in clients.items():
                    self._redis(name, one)
                for name, url in self.urls.items():
                    self._latency(name, client, url)
        for one in clients.values():
            one.close()

    def _process(self, name: str, pid: int) -> None:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                memory = process.memory_info()
                self._add(f"rss {name} {pid}", memory.rss / 1e6)
                # Without pages of files, of which code that runs for the first time brings in more.
                self._add(f"anonymous {name} {pid}", (memory.rss - memory.shared) / 1e6)
                self._add(f"files {name} {pid}", process.num_fds())
        except psutil.Error:
            return  # it ended in this very moment

    def _redis(self, name: str, client: redis.Redis) -> None:
        try:
            self._add(f"redis {name}", client.info("memory")["used_memory"] / 1e6)
        except redis.RedisError:
            return  # it is down, as planned

    def _latency(self, name: str, client: httpx.Client, url: str) -> None:
        began = time.perf_counter()
        try:
            client.get(url)
        except httpx.HTTPError:
            return  # the same
        self._add(f"latency {name}", 1000 * (time.perf_counter() - began))

    def _add(self, name: str, value: float) -> None:
        times, values = self.series[name]
        times.append(time.monotonic())
        values.append(value)
