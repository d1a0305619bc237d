"""A real Prometheus that reads real sites, and one made-up process that tells all of the catalogue at once."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

from concord.telemetry.catalogue import GROUPS, Kind, Metric
from tools.get_prometheus import find
from tools.render_manifests import RULES

CONFIG = RULES.parent / "prometheus.yml"
REAL, MADE_UP = "real", "made-up"
"""Namespaces of the two kinds of targets."""

_VALUES = {
    "phase": ("joining", "training", "finished"),
    "state": ("closed", "open", "half_open"),
    "status": ("200", "503"),
    "neighbour": ("N1",),
}


@dataclass
class Prometheus:
    """Asks over HTTP, as Grafana does."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer; AssertionError with what Prometheus says against the question."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=20).json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        return list(self.ask("query", query=expr)["result"])


@contextmanager
def prometheus(folder: Path, sites: Mapping[str, str], made_up: str) -> Iterator[Prometheus]:
    """One that reads the sites (name to URL) every two seconds, set up as k8s/prometheus/prometheus.yml has it."""
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "2s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    (job,) = config["scrape_configs"]
    assert [one["labels"]["site"] for one in job["static_configs"]] == list(sites)
    for one in job["static_configs"]:
        one["targets"] = [sites[one["labels"]["site"]].removeprefix("http://")]
        one["labels"]["namespace"] = REAL
    labels = {"site": MADE_UP, "namespace": MADE_UP}
    job["static_configs"].append({"targets": [made_up.removeprefix("http://")], "labels": labels})
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([find(), *words], cwd=folder, stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, folder / "prometheus.log")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if httpx.get(f"{url}/-/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@contextmanager
def tells_everything() -> Iterator[str]:
    """The URL of a process that has every metric of the catalogue, with labels; counters rise with each scrape."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    scrapes = 0

    def do_GET(self) -> None:
        type(self).scrapes += 1
        body = "".join(_lines(self.scrapes)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # whoever read it may have ended meanwhile
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def _lines(scrapes: int) -> Iterator[str]:
    for group in GROUPS:
        for metric in group.metrics:
            yield f"# TYPE {metric.name} {metric.kind.value}\n"
            yield from _series(metric, scrapes)


def _series(metric: Metric, scrapes: int) -> Iterator[str]:
    for place in range(max(len(_VALUES.get(label, ("x",))) for label in (*metric.labels, ""))):
        pairs = [f'{label}="{(_VALUES.get(label, ("x",)) * 3)[place]}"' for label in metric.labels]
        if metric.kind is Kind.HISTOGRAM:
            for bound in ("0.1", "1", "+Inf"):
                yield f"{metric.name}_bucket{{{','.join([*pairs, f'le={chr(34)}{bound}{chr(34)}'])}}} {scrapes}\n"
            yield f"{metric.name}_sum{{{','.join(pairs)}}} {scrapes}\n"
            yield f"{metric.name}_count{{{','.join(pairs)}}} {scrapes}\n"
        else:
            value = scrapes if metric.kind is Kind.COUNTER else 1
            yield f"{metric.name}{{{','.join(pairs)}}} {value}\n"
