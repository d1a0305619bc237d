"""Two real sites send their spans to a collector: an update's four are one trace, a prediction's is its caller's."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from concord.apps.local import HOST
from concord.telemetry.tracing import STEPS
from waiting import wait_until

JOB = """\
name: traced
task: digits
sites: 2
split: {classes: [5, 5]}
topology: ring
training: {rounds: 100000, pace: 0.1, local_steps: 4, learning_rate: 0.1}
serving: {every: 0.2}
"""
CALLER = (0x0AF7651916CD43DD8448EB211C80319C, 0x00F067AA0BA902B7)


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP; `spans` are those that came, by trace, each with the site that sent it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: defaultdict[bytes, list[tuple[str, Span]]] = defaultdict(list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        told = ExportTraceServiceRequest()
        told.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in told.resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.server.spans[span.trace_id].append((about["concord.site"], span))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests are quiet."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield server
        server.shutdown()
        thread.join()


def whole(collector: Collector) -> list[tuple[str, Span]] | None:
    """The spans of an update that went all the way from N1 to N2."""
    for spans in list(collector.spans.values()):
        if [site for site, _ in spans].count("N1") == 2 and len(spans) == len(STEPS):
            return sorted(spans, key=lambda one: STEPS.index(one[1].name.removeprefix("update ")))
    return None


def test_an_update_is_one_trace_of_two_sites(
    collector: Collector, command: Callable[..., subprocess.Popen[str]], base_port: int, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    process = command("up", "job.yaml", "--base-port", str(base_port), "--json")
    headers = {"traceparent": f"00-{CALLER[0]:032x}-{CALLER[1]:016x}-01"}
    answered = 0

    def told() -> bool:
        nonlocal answered
        try:
            answer = httpx.post(f"http://{HOST}:{base_port}/v1/predict", json={"inputs": [0.0] * 64}, headers=headers)
            answered += answer.status_code == 200
        except httpx.HTTPError:
            return False
        return answered > 0 and whole(collector) is not None

    wait_until(told, "an update went all the way, and a prediction was answered")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    spans = whole(collector)
    assert spans is not None
    sites = [site for site, _ in spans]
    assert sorted(sites[:2]) != sorted(sites[2:])
    assert len(set(sites)) == 2
    assert [span.name for _, span in spans] == [f"update {step}" for step in STEPS]
    for (_, parent), (_, child) in pairwise(spans):
        assert child.parent_span_id == parent.span_id
    assert not spans[0][1].parent_span_id
    ids = {one.value.string_value for _, span in spans for one in span.attributes if one.key == "concord.update"}
    assert len(ids) == 1
    assert ids.pop().startswith("traced/")
    told = collector.spans[CALLER[0].to_bytes(16)]
    assert {(site, span.name, span.parent_span_id) for site, span in told} == {("N1", "predict", CALLER[1].to_bytes(8))}
