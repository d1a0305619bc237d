"""One kind of objects, kept in memory by a thread of its own: listed once, then followed by a watch.

A watch that breaks goes on from the last version that was seen, so that nothing is missed; only when the server has
forgotten that version (410) is the list read anew. Must not know what the objects are for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from concord.cluster.api import GONE, Cluster, Object, Stream
from concord.errors import ClusterError

log = logging.getLogger(__name__)

WATCH_SECONDS = 120
"""A watch is opened anew after this time; so a connection that died silently is noticed a little later."""


class Backoff(Protocol):
    """How long to wait before trying again."""

    def next(self) -> float:
        """Seconds."""

    def reset(self) -> None:
        """It went well."""


class Watched:
    """The objects of one `kind` with some `labels`. `changed` is called from the thread after each change."""

    def __init__(
        self,
        cluster: Cluster,
        kind: str,
        labels: str,
        changed: Callable[[], None],
        backoff: Backoff,
        seconds: int = WATCH_SECONDS,
    ) -> None:
        self.kind = kind
        self.problem: str | None = None
        self.lists = 0
        self._cluster = cluster
        self._labels = labels
        self._changed = changed
        self._backoff = backoff
        self._seconds = seconds
        self._lock = threading.Lock()
        self._objects: dict[str, Object] | None = None
        self._version: str | None = None
        self._stream: Stream | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {kind}", daemon=True)

    @property
    def synced(self) -> bool:
        """Whether the objects were ever listed; since then they are at worst a little old."""
        return self._objects is not None

    @property
    def alive(self) -> bool:
        """Whether the thread does its work."""
        return self._thread.is_alive()

    def objects(self) -> list[Object]:
        """What is known now."""
        with self._lock:
            return list((self._objects or {}).values())

    def start(self) -> None:
        """List and follow until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it may still wait for an answer."""
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def join(self, timeout: float) -> None:
        """Wait for the thread."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._version is None:
                    self._list()
                self._follow()
                self.problem = None
            except ClusterError as error:
                if error.status == GONE:
                    log.info("%s: the watch is too far behind; reading the list anew", self.kind)
                    self._version = None
                elif not self._stopping.is_set():
                    self.problem = str(error)
                    log.warning("%s", error)
                self._stopping.wait(self._backoff.next())

    def _list(self) -> None:
        items, version = self._cluster.list(self.kind, self._labels)
        with self._lock:
            self._objects = {_key(item): _slim(item) for item in items}
        self._version = version
        self.lists += 1
        self.problem = None
        self._changed()

    def _follow(self) -> None:
        """Until the server ends the watch; ClusterError if it ended before its time."""
        began = time.monotonic()
        self._stream = self._cluster.watch(self.kind, self._labels, str(self._version), self._seconds)
        if self._stopping.is_set():
            self._stream.close()
        self.problem = None
        heard = False
        for kind, one in self._stream:
            self._take(kind, one)
            heard = True
            self._backoff.reset()
        # Some proxies end idle connections in good order; at once and again and again would be a storm.
        if not heard and time.monotonic() - began < min(1.0, self._seconds / 2):
            raise ClusterError(f"watch {self.kind}: ended as soon as it was open")

    def _take(self, kind: str, one: Object) -> None:
        self._version = one["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        with self._lock:
            known = self._objects if self._objects is not None else {}
            if kind == "DELETED":
                known.pop(_key(one), None)
            else:
                known[_key(one)] = _slim(one)
        self._changed()


def _key(one: Object) -> str:
    return str(one["metadata"]["name"])


def _slim(one: Object) -> Object:
    """Without the book-keeping of writers, which may be most of an object."""
    one["metadata"].pop("managedFields", None)
    return one
