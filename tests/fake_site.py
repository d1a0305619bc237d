"""A site's HTTP door that answers what a test lays down, for tests of the clients in the command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class FakeSite:
    """`answers` maps a path to status and JSON body; `asked` keeps what was posted, by path."""

    url: str
    answers: dict[str, tuple[int, object]] = field(default_factory=dict)
    asked: list[tuple[str, object]] = field(default_factory=list)


@contextmanager
def fake_site(answers: Mapping[str, tuple[int, object]]) -> Iterator[FakeSite]:
    """A fake site on a free port of the loopback, for the time of the block."""

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            site.asked.append((self.path, json.loads(body)))
            self._answer()

        def _answer(self) -> None:
            status, body = site.answers.get(self.path, (404, {"error": "no such route"}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        site = FakeSite(f"http://127.0.0.1:{server.server_address[1]}", dict(answers))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def status_of(site: str, accuracy: float = 0.5, **changes: object) -> dict[str, object]:
    """The status a site would report in the middle of its training."""
    edge = {"staleness_seconds": 0.25, "consensus_distance": 0.125, "staleness_rounds": 1}
    return {
        "site": site,
        "federation": "digits",
        "metric": "accuracy",
        "rounds": 300,
        "classes": {"3": 10, "7": 12, "8": 0},
        "steps_per_second": 1200.0,
        "progress": {
            "phase": "training",
            "round": 120,
            "metrics": {"accuracy": accuracy},
            "edges": {"N2": edge},
        },
        **changes,
    }
