"""A small HTTP server that speaks the part of the Kubernetes API that Secrets need: get, create, replace, conflicts."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "a token of the service account"
Object = dict[str, Any]


@dataclass
class FakeCluster:
    """Secrets by name in one namespace, and what was asked. `before` is called with method and name, and may meddle."""

    namespace: str
    url: str = ""
    secrets: dict[str, Object] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    forbidden: frozenset[str] = frozenset()
    before: Callable[[str, str], None] = lambda method, name: None
    lock: threading.RLock = field(default_factory=threading.RLock)
    version: int = 0

    def lay(self, name: str, secret: Object) -> Object:
        """Store an object as a new version of itself."""
        self.version += 1
        secret["metadata"] = {**secret.get("metadata", {}), "name": name, "resourceVersion": str(self.version)}
        self.secrets[name] = secret
        return secret

    def content(self, name: str) -> dict[str, bytes]:
        """The decoded data of a Secret."""
        return {key: base64.b64decode(text) for key, text in self.secrets[name]["data"].items()}

    def answer(self, method: str, path: str, body: Object | None) -> tuple[int, Object]:
        """Status and object for one request."""
        collection = f"/api/v1/namespaces/{self.namespace}/secrets"
        name = path.removeprefix(collection).strip("/") or (body or {}).get("metadata", {}).get("name", "")
        if not path.startswith(collection) or not name:
            return _failure(404, "NotFound")
        self.before(method, name)
        with self.lock:
            self.asked.append((method, name))
            if method in self.forbidden:
                return _failure(403, "Forbidden")
            return getattr(self, f"_{method.lower()}")(name, body)

    def _get(self, name: str, body: None) -> tuple[int, Object]:
        return (200, self.secrets[name]) if name in self.secrets else _failure(404, "NotFound")

    def _post(self, name: str, body: Object) -> tuple[int, Object]:
        return _failure(409, "AlreadyExists") if name in self.secrets else (201, self.lay(name, body))

    def _put(self, name: str, body: Object) -> tuple[int, Object]:
        if name not in self.secrets:
            return _failure(404, "NotFound")
        now = self.secrets[name]
        if body["metadata"].get("resourceVersion") != now["metadata"]["resourceVersion"]:
            return _failure(409, "Conflict")
        return (200, self.lay(name, body)) if body["type"] == now["type"] else _failure(422, "Invalid")


def _failure(status: int, reason: str) -> tuple[int, Object]:
    return status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}


@contextmanager
def fake_cluster(namespace: str) -> Iterator[FakeCluster]:
    """The server while the block runs."""
    cluster = FakeCluster(namespace)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            if self.headers["authorization"] != f"Bearer {TOKEN}":
                status, answer = _failure(401, "Unauthorized")
            else:
                status, answer = cluster.answer(self.command, self.path, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 (names that http.server looks for)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield cluster
        finally:
            server.shutdown()
            thread.join()


def write_kubeconfig(path: Path, url: str, token: str = TOKEN) -> None:
    """A configuration that leads to a cluster."""
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": url}}],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            }
        )
    )
