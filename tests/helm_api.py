"""As much of a Kubernetes API server as helm needs: it keeps objects as they come; every Job and Pod is done at once.

Nothing is checked or defaulted; the schemas do that elsewhere. Objects of the core come as protocol buffers where helm
keeps its own records, everything else as JSON or YAML.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Resource, namespace and name."""

GROUPS = {
    "v1": ("configmaps ConfigMap", "pods Pod", "secrets Secret", "serviceaccounts ServiceAccount", "services Service"),
    "apps/v1": ("deployments Deployment", "statefulsets StatefulSet"),
    "autoscaling/v2": ("horizontalpodautoscalers HorizontalPodAutoscaler",),
    "batch/v1": ("cronjobs CronJob", "jobs Job"),
    "networking.k8s.io/v1": ("networkpolicies NetworkPolicy",),
    "policy/v1": ("poddisruptionbudgets PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("rolebindings RoleBinding", "roles Role"),
}
KINDS: Mapping[str, tuple[str, str]] = {
    resource: (api, kind) for api, several in GROUPS.items() for resource, kind in (one.split() for one in several)
}
DONE = {
    "Job": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]},
    "Pod": {"phase": "Succeeded"},
}
_PATH = re.compile(
    r"/api/v1(/namespaces/(?P<ns>[^/]+))?/(?P<res>\w+)(/(?P<name>[^/]+))?(?P<sub>/log)?"
    r"|/apis/[^/]+/\w+(/namespaces/(?P<ns2>[^/]+))?/(?P<res2>\w+)(/(?P<name2>[^/]+))?"
)
_PROTOBUF = b"k8s\0"


@dataclass
class HelmApi:
    """What is in the cluster by `(resource, namespace, name)`, and what was written, in order."""

    url: str = ""
    objects: dict[Key, Object] = field(default_factory=dict)
    written: list[tuple[str, str, str]] = field(default_factory=list)
    version: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def names(self, resource: str) -> set[str]:
        return {name for kind, _, name in self.objects if kind == resource and "sh.helm.release" not in name}

    def get(self, resource: str, name: str) -> Object:
        (found,) = (one for (kind, _, own), one in self.objects.items() if (kind, own) == (resource, name))
        return deepcopy(found)

    def put(self, key: Key, one: Object) -> Object:
        """Store an object as a new version of itself."""
        before = self.objects.get(key, {}).get("metadata", {})
        self.version += 1
        one["apiVersion"], one["kind"] = KINDS[key[0]]
        one["metadata"] |= {
            "namespace": key[1],
            "uid": before.get("uid") or str(uuid.uuid4()),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "resourceVersion": str(self.version),
        }
        if one["kind"] in DONE:
            one["status"] = DONE[one["kind"]]
        self.objects[key] = one
        return one

    def listed(self, resource: str, namespace: str | None, query: Mapping[str, str]) -> list[Object]:
        """The objects that a list or a watch asks for."""
        labels = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        return [
            one
            for (kind, place, own), one in self.objects.items()
            if kind == resource and namespace in (None, place) and name in ("", own)
            if labels.items() <= one["metadata"].get("labels", {}).items()
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is written in parts, each of which would wait for the one before
    api: HelmApi

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        known = _discovery(place.path.rstrip("/"))
        if known is not None:
            self._answer(200, known)
            return
        if place.path == "/openapi/v2":
            self._send(200, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", b"")  # an empty document
            return
        resource, namespace, name, log = self._target(place.path)
        query = dict(parse_qsl(place.query))
        if resource not in KINDS:
            self._answer(*_failure(404, "NotFound"))
        elif log:
            self._send(200, "text/plain", b"a line of the test's log\n")
        elif name:
            with self.api.lock:
                found = self.api.objects.get((resource, namespace or "", name))
            self._answer(*((200, found) if found else _failure(404, "NotFound")))
        elif query.get("watch") in ("1", "true"):
            self._watch(resource, namespace, query)
        else:
            with self.api.lock:
                items, version = self.api.listed(resource, namespace, query), str(self.api.version)
            api, kind = KINDS[resource]
            listed = {"kind": f"{kind}List", "apiVersion": api, "metadata": {"resourceVersion": version}}
            self._answer(200, {**listed, "items": items})

    def do_POST(self) -> None:
        resource, namespace, _, _ = self._target(urlsplit(self.path).path)
        self._write("create", (resource, namespace or "", ""), self._body())

    def do_PUT(self) -> None:
        resource, namespace, name, _ = self._target(urlsplit(self.path).path)
        self._write("replace", (resource, namespace or "", name), self._body())

    def do_PATCH(self) -> None:
        resource, namespace, name, _ = self._target(urlsplit(self.path).path)
        patch, key = self._body(), (resource, namespace or "", name)
        if "apply-patch" not in self.headers["Content-Type"]:
            with self.api.lock:
                patch = _merged(self.api.objects[key], patch)
        self._write("apply", key, patch)

    def do_DELETE(self) -> None:
        resource, namespace, name, _ = self._target(urlsplit(self.path).path)
        self._body()
        with self.api.lock:
            gone = self.api.objects.pop((resource, namespace or "", name), None)
        if gone:
            self.api.written.append(("delete", resource, name))
        self._answer(*((200, {"kind": "Status", "status": "Success"}) if gone else _failure(404, "NotFound")))

    def _write(self, verb: str, key: Key, one: Object) -> None:
        key = (key[0], key[1], one["metadata"]["name"])
        with self.api.lock:
            if verb == "create" and key in self.api.objects:
                self._answer(*_failure(409, "AlreadyExists"))
                return
            new = key not in self.api.objects
            self.api.written.append((verb, key[0], key[2]))
            self._answer(201 if new else 200, self.api.put(key, one))

    def _watch(self, resource: str, namespace: str | None, query: Mapping[str, str]) -> None:
        """What changes from now on, and first what is there if that is asked for, as long as somebody listens."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        initial = query.get("sendInitialEvents") == "true"
        api, kind = KINDS[resource]
        with suppress(BrokenPipeError, ConnectionResetError):
            seen: dict[str, Object] = {}
            with self.api.lock:
                there = {one["metadata"]["name"]: one for one in self.api.listed(resource, namespace, query)}
            if initial:
                marks = {"resourceVersion": str(self.api.version), "annotations": {"k8s.io/initial-events-end": "true"}}
                for one in there.values():
                    self._tell("ADDED", one)
                self._tell("BOOKMARK", {"kind": kind, "apiVersion": api, "metadata": marks})
            seen = there
            while not self.server.stopping.wait(0.02):  # type: ignore[attr-defined]
                with self.api.lock:
                    now = {one["metadata"]["name"]: one for one in self.api.listed(resource, namespace, query)}
                for name, one in now.items():
                    if seen.get(name) is not one:
                        self._tell("MODIFIED" if name in seen else "ADDED", one)
                for name in seen.keys() - now.keys():
                    self._tell("DELETED", seen[name])
                seen = now

    def _tell(self, event: str, one: Object) -> None:
        line = json.dumps({"type": event, "object": one}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _target(self, path: str) -> tuple[str, str | None, str, bool]:
        found = _PATH.fullmatch(path)
        assert found, path
        resource = found["res"] or found["res2"]
        return resource, found["ns"] or found["ns2"], found["name"] or found["name2"] or "", bool(found["sub"])

    def _body(self) -> Object:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if raw.startswith(_PROTOBUF):
            return _secret(raw)
        return yaml.load(raw, Loader=yaml.CSafeLoader) or {}

    def _answer(self, status: int, one: Object) -> None:
        self._send(status, "application/json", json.dumps(one).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


def _discovery(path: str) -> Object | None:
    """What the server has; None if the path is not about that."""
    if path == "/version":
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [
            {"name": api.split("/")[0], "versions": [{"groupVersion": api, "version": api.split("/")[1]}]}
            for api in GROUPS
            if "/" in api
        ]
        return {"kind": "APIGroupList", "groups": groups}
    if path == "/openapi/v3":
        return {"paths": {}}
    api = path.removeprefix("/apis/").removeprefix("/api/")
    if api not in GROUPS:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources = [
        {"name": resource, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
        for resource, kind in (one.split() for one in GROUPS[api])
    ]
    return {"kind": "APIResourceList", "groupVersion": api, "resources": resources}


def _failure(status: int, reason: str) -> tuple[int, Object]:
    return status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}


def _merged(one: Object, patch: Object) -> Object:
    """A JSON merge patch (RFC 7386)."""
    result = deepcopy(one)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key) or {}, value) if isinstance(value, dict) else value
    return result


def _secret(raw: bytes) -> Object:
    """A Secret, or nothing of what else helm sends, from protocol buffers: names, labels and data are all it needs."""
    envelope = dict(_fields(raw.removeprefix(_PROTOBUF)))
    if dict(_fields(envelope[1])).get(2) != b"Secret":
        return {}
    metadata: Object = {"labels": {}}
    data = {}
    for number, content in _fields(envelope[2]):
        if number == 1:
            for inner, value in _fields(content):
                if inner == 1:
                    metadata["name"] = value.decode()
                elif inner == 11:
                    label = dict(_fields(value))
                    metadata["labels"][label[1].decode()] = label.get(2, b"").decode()
        elif number == 2:
            entry = dict(_fields(content))
            data[entry[1].decode()] = base64.b64encode(entry.get(2, b"")).decode()
    return {"metadata": metadata, "data": data, "type": "helm.sh/release.v1"}


def _fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field that has a length; numbers by themselves are passed over."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = raw[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(raw):
        tag = number()
        length = number()
        if tag & 7 == 2:
            yield tag >> 3, raw[place : place + length]
            place += length


@contextmanager
def helm_api() -> Iterator[HelmApi]:
    """Such a server, empty, on a free port."""
    api = HelmApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    server.stopping = threading.Event()  # type: ignore[attr-defined]
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield api
    finally:
        server.stopping.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
        server.server_close()
