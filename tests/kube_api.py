"""A small real HTTP server that speaks as much of the Kubernetes API as `concord fleet` needs.

Lists, watches with versions and bookmarks, optimistic writes, and a role that it enforces. It can be told to cut
watches, to forget old versions, and to be away. Everything is held in memory.
"""

from __future__ import annotations

import copy
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
Found = TypeVar("Found")

PATIENCE = 20.0
"""Seconds that a test waits for something to happen before it fails."""

_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/v1)/namespaces/(?P<ns>[^/]+)/(?P<kind>[^/]+)(?:/(?P<name>[^/]+))?"
)
_GROUPS = {
    "services": "", "pods": "", "configmaps": "", "endpointslices": "discovery.k8s.io",
    "leases": "coordination.k8s.io", "events": "events.k8s.io",
}  # fmt: skip
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

Rule = tuple[str, frozenset[str], frozenset[str] | None]
"""Resource, verbs, and the names they are limited to."""


class KubeApi:
    """The server; a context manager. `url` is its address, `requests` what was asked of it."""

    def __init__(self, role: list[Rule] | None = None) -> None:
        self.requests: list[str] = []
        self.gone_as: Literal["status", "event"] = "status"
        self._role = role
        self._changed = threading.Condition()
        self._version = 100
        self._oldest = 0
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._history: list[tuple[int, str, str, str, Object]] = []
        self._watching: dict[socket.socket, str] = {}
        self._told: dict[str, int] = {}
        self._away = False
        self._before_update: tuple[str, Callable[[], None]] | None = None
        api = self

        class Handler(_Handler):
            kube = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> KubeApi:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._away = True
        self.cut_watches()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # --- what tests do ---------------------------------------------------------------------------------------

    def put(self, kind: str, namespace: str, body: Object) -> Object:
        """Create or overwrite, as a chart or a person would."""
        with self._changed:
            key = (kind, namespace, body["metadata"]["name"])
            return self._store(key, body, "MODIFIED" if key in self._objects else "ADDED")

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Remove one object."""
        with self._changed:
            self._store((kind, namespace, name), self._objects[kind, namespace, name], "DELETED")

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """One object."""
        with self._changed:
            return copy.deepcopy(self._objects.get((kind, namespace, name)))

    def all(self, kind: str, namespace: str) -> list[Object]:
        """All objects of a kind."""
        with self._changed:
            return [copy.deepcopy(one) for key, one in sorted(self._objects.items()) if key[:2] == (kind, namespace)]

    def until(self, condition: Callable[[], Found | None], what: str = "") -> Found:
        """What `condition` gives once it is true; asked after every request and change. AssertionError if late."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while not (found := condition()):
                left = deadline - time.monotonic()
                assert left > 0, f"not in time: {what or condition}"
                self._changed.wait(min(left, 0.5))
            return found

    def watches(self, kind: str) -> int:
        """How many watches of a kind are open."""
        with self._changed:
            return sum(one == kind for one in self._watching.values())

    def told(self, kind: str) -> int:
        """The newest version that a watch of a kind was told."""
        with self._changed:
            return self._told.get(kind, 0)

    def cut_watches(self) -> None:
        """Break every open watch as a failing network would."""
        with self._changed:
            for connection in list(self._watching):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()

    def forget(self) -> None:
        """Whoever goes on from a version before now is told 410."""
        with self._changed:
            self._version += 1
            self._oldest = self._version
            self._history.clear()

    def bookmark(self) -> int:
        """Tell every watch the version of now, and return it."""
        with self._changed:
            self._version += 1
            for kind in _GROUPS:
                self._history.append((self._version, "BOOKMARK", kind, "", {}))
            self._changed.notify_all()
            return self._version

    def before_next_update(self, action: Callable[[], None], name: str) -> None:
        """Do something just before the next update of `name` is looked at, so that it comes too late."""
        self._before_update = (name, action)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in the block is told at its end, all at once."""
        with self._changed:
            yield

    @contextmanager
    def away(self) -> Iterator[None]:
        """While the block runs every connection is broken off."""
        self._away = True
        self.cut_watches()
        try:
            yield
        finally:
            self._away = False

    # --- what clients do -------------------------------------------------------------------------------------

    def _store(self, key: tuple[str, str, str], body: Object, event: str) -> Object:
        self._version += 1
        one = copy.deepcopy(body)
        meta = one["metadata"]
        old = self._objects.get(key, {}).get("metadata", {})
        meta.setdefault("uid", old.get("uid", str(uuid.uuid4())))
        meta.setdefault(
            "creationTimestamp", old.get("creationTimestamp", datetime.now(UTC).isoformat(timespec="seconds"))
        )
        meta.update(namespace=key[1], resourceVersion=str(self._version))
        if event == "DELETED":
            del self._objects[key]
        else:
            self._objects[key] = one
        self._history.append((self._version, event, key[0], key[1], one))
        self._changed.notify_all()
        return copy.deepcopy(one)

    def permits(self, verb: str, kind: str, name: str | None) -> bool:
        """Whether the role allows it; without a role everything is allowed."""
        return self._role is None or any(
            kind == resource and verb in verbs and (names is None or name in names)
            for resource, verbs, names in self._role
        )

    def answer(self, method: str, kind: str, namespace: str, name: str | None, body: Object) -> tuple[int, Object]:
        """One request that is no list and no watch: status and object."""
        if method == "PUT" and self._before_update is not None and self._before_update[0] == name:
            (_, action), self._before_update = self._before_update, None
            action()
        with self._changed:
            key = (kind, namespace, name or body.get("metadata", {}).get("name", ""))
            found = self._objects.get(key)
            if method == "POST":
                if found is not None:
                    return 409, _status(409, "AlreadyExists", f"{kind} {key[2]!r} already exists")
                return 201, self._store(key, body, "ADDED")
            if found is None:
                return 404, _status(404, "NotFound", f"{kind} {key[2]!r} not found")
            if method == "GET":
                return 200, copy.deepcopy(found)
            if method == "DELETE":
                return 200, self._store(key, found, "DELETED")
            given = body.get("metadata", {}).get("resourceVersion")
            if given and given != found["metadata"]["resourceVersion"]:
                return 409, _status(409, "Conflict", f"{kind} {key[2]!r}: the object has been modified")
            return 200, self._store(key, body if method == "PUT" else _merged(found, body), "MODIFIED")

    def list(self, kind: str, namespace: str, selector: str) -> Object:
        """The list of a kind."""
        with self._changed:
            items = [one for one in self.all(kind, namespace) if _matches(one, selector)]
            return {
                "kind": "List",
                "apiVersion": "v1",
                "metadata": {"resourceVersion": str(self._version)},
                "items": items,
            }

    def events(
        self, kind: str, namespace: str, selector: str, after: int, seconds: float, connection: socket.socket
    ) -> Iterator[Object]:
        """The events of a watch, until its time is over or it is cut."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._watching[connection] = kind
            self._changed.notify_all()
        try:
            while (left := deadline - time.monotonic()) > 0:
                with self._changed:
                    if after < self._oldest:
                        yield {"type": "ERROR", "object": _status(410, "Expired", "too old resource version")}
                        return
                    fresh = [entry for entry in self._history if entry[0] > after and entry[2] == kind]
                    if not fresh:
                        self._changed.wait(min(left, 0.1))
                        if connection not in self._watching or self._away:
                            return
                for version, event, _, where, one in fresh:
                    after = version
                    if event == "BOOKMARK":
                        yield {"type": event, "object": {"kind": kind, "metadata": {"resourceVersion": str(version)}}}
                    elif where == namespace and _matches(one, selector):
                        yield {"type": event, "object": one}
                    with self._changed:
                        self._told[kind] = version
                        self._changed.notify_all()
        finally:
            with self._changed:
                self._watching.pop(connection, None)
                self._changed.notify_all()

    def expired(self, after: int) -> bool:
        """Whether a watch from a version is answered with the status 410, rather than in the stream."""
        return after < self._oldest and self.gone_as == "status"

    def note(self, request: str) -> None:
        """Remember a request, and let waiting tests look again."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    @property
    def is_away(self) -> bool:
        """Whether connections are broken off."""
        return self._away


class _Handler(BaseHTTPRequestHandler):
    kube: KubeApi
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _serve(self) -> None:
        if self.kube.is_away:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        match = _PATH.fullmatch(url.path)
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
        if match is None or _GROUPS.get(match["kind"]) != (match["group"] or ""):
            self._send(404, _status(404, "NotFound", f"no such path: {url.path}"))
            return
        kind, namespace, name = match["kind"], match["ns"], match["name"]
        verb = _VERBS.get(self.command) or ("watch" if "watch" in query else "get" if name else "list")
        self.kube.note(f"{verb} {kind} {name or query.get('resourceVersion', '')}".strip())
        if not self.kube.permits(verb, kind, name):
            self._send(403, _status(403, "Forbidden", f"cannot {verb} {kind} {name or ''}"))
        elif verb == "watch":
            self._watch(kind, namespace, query)
        elif verb == "list":
            self._send(200, self.kube.list(kind, namespace, query.get("labelSelector", "")))
        else:
            self._send(*self.kube.answer(self.command, kind, namespace, name, body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _send(self, code: int, answer: Object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(data)

    def _watch(self, kind: str, namespace: str, query: dict[str, str]) -> None:
        after = int(query["resourceVersion"])
        if self.kube.expired(after):
            self._send(410, _status(410, "Expired", f"too old resource version: {after}"))
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seconds = float(query.get("timeoutSeconds", "300"))
        events = self.kube.events(kind, namespace, query.get("labelSelector", ""), after, seconds, self.connection)
        try:
            for event in events:
                line = json.dumps(event).encode() + b"\n"
                # In two chunks: a line need not come in one piece.
                for part in (line[:7], line[7:]):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
        finally:
            events.close()  # type: ignore[attr-defined]


def _matches(one: Object, selector: str) -> bool:
    labels = one["metadata"].get("labels") or {}
    wanted = [term.partition("=") for term in selector.split(",") if term]
    return all(labels.get(key) == value for key, _, value in wanted)


def _merged(old: Object, patch: Object) -> Object:
    """RFC 7386."""
    new = dict(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict) and isinstance(new.get(key), dict):
            new[key] = _merged(new[key], value)
        else:
            new[key] = value
    return new


def _status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
