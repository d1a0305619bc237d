"""The callers of `benchmarks.swaps`: threads that ask over one connection each, as fast as they are answered.

On stdin come `begin`, `end` and `quit`; to each of the first two one line of JSON answers.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from math import prod
from urllib.parse import urlsplit


@dataclass(slots=True)
class Seen:
    """Latencies in seconds; answers that were not right; answers from an older model than the one before."""

    latencies: list[float] = field(default_factory=list)
    failures: int = 0
    falls: int = 0


class Caller(threading.Thread):
    """One of them."""

    def __init__(self, url: str, row: list[int], go: threading.Event) -> None:
        super().__init__(daemon=True)
        place = urlsplit(url)
        self.seen = Seen()
        self.turn = threading.Lock()
        """Held while it asks."""
        self._connection = http.client.HTTPConnection(str(place.hostname), place.port)
        self._body = json.dumps({"inputs": [0.25] * prod(row)}).encode()
        self._go = go
        self._version = 0

    def run(self) -> None:
        """Ask, for as long as the process lives, while there is `go`."""
        while True:
            self._go.wait()
            with self.turn:
                self._ask()

    def stop(self) -> Seen:
        """What it has seen, once its last answer is in; `go` must be over."""
        with self.turn:
            return self.seen

    def _ask(self) -> None:
        if not self._go.is_set():
            return
        began = time.perf_counter()
        try:
            self._connection.request("POST", "/v1/predict", self._body)
            answer = self._connection.getresponse()
            body = answer.read()
        except OSError:
            self.seen.failures += 1
            self._connection.close()
            return
        self.seen.latencies.append(time.perf_counter() - began)
        self._judge(answer.status, answer.headers.get("Concord-Model-Version", "-1"), body)

    def _judge(self, status: int, version: str, body: bytes) -> None:
        if status != 200 or not body.startswith(b'{"predictions"'):
            self.seen.failures += 1
        self.seen.falls += int(version) < self._version
        self._version = int(version)


def main(url: str, row: str, threads: str) -> None:
    """Obey stdin."""
    sys.setswitchinterval(1e-4)  # else one whose answer is there waits up to 5 ms for its turn, and counts that
    go = threading.Event()
    callers = [Caller(url, json.loads(row), go) for _ in range(int(threads))]
    for caller in callers:
        caller.start()
    for line in sys.stdin:
        match line.strip():
            case "begin":
                for caller in callers:
                    caller.seen = Seen()
                go.set()
                print("{}", flush=True)
            case "end":
                go.clear()
                seen = [caller.stop() for caller in callers]
                total = Seen(
                    [one for s in seen for one in s.latencies],
                    *(sum(getattr(s, name) for s in seen) for name in ("failures", "falls")),
                )
                print(json.dumps(asdict(total)), flush=True)
            case _:
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
