"""Which replica leads, by a Lease of coordination.k8s.io: as client-go elects, so that its tools understand it.

The client's own election (`kubernetes.leaderelection`, version 37) has no end, no release and no limit to a request,
ends at the first connection that is refused, and compares wall clocks; so this is a small one of our own. Only this
process's monotonic clock decides when a lease that another holds has run out, or when one's own is no longer safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from concord.cluster.api import CONFLICT, Cluster, Object
from concord.errors import ClusterError

log = logging.getLogger(__name__)

_RELEASE_TIMEOUT = 1.5


@dataclass(frozen=True, slots=True)
class ElectionTimes:
    """Seconds. A lease not renewed for `lease` is free; its holder stops leading `renew` after its last renewal.

    `retry` lies between two tries. `renew` must be well below `lease`: the difference is the time in which nobody
    leads, and in which a last write may still be under way.
    """

    lease: int = 15
    renew: float = 10.0
    retry: float = 2.0


class Election:
    """Tries to get and keep the lease, in a thread of its own. `changed` is called when it begins or ceases to lead."""

    def __init__(
        self, cluster: Cluster, name: str, identity: str, changed: Callable[[], None], times: ElectionTimes
    ) -> None:
        self.name = name
        self.identity = identity
        self.holder: str | None = None
        self._cluster = cluster
        self._changed = changed
        self._times = times
        self._safe_until = 0.0
        self._seen: tuple[object, ...] | None = None
        self._seen_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)

    @property
    def leading(self) -> bool:
        """Whether this replica may write; ask before every write."""
        return time.monotonic() < self._safe_until and not self._stopping.is_set()

    @property
    def alive(self) -> bool:
        """Whether the thread does its work."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Stand for election until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Cease to lead now; the thread then gives the lease back and ends."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait for the thread."""
        self._thread.join(timeout)

    def _run(self) -> None:
        led = False
        while not self._stopping.is_set():
            try:
                self._try()
            except ClusterError as error:
                log.warning("%s", error)
            if led != self.leading:
                led = self.leading
                log.info("%s %s", self.identity, "leads" if led else "does not lead any more")
                self._changed()
            self._stopping.wait(self._times.retry)
        if self.holder == self.identity:
            self._release()

    def _try(self) -> None:
        asked = time.monotonic()
        lease = self._cluster.lease(self.name)
        if lease is None:
            self._cluster.create_lease(self._mine({"metadata": {"name": self.name}}, 0))
            self._won(asked)
            return
        spec = lease.get("spec") or {}
        self.holder = spec.get("holderIdentity") or None
        seen = (self.holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, time.monotonic()
        patience = spec.get("leaseDurationSeconds") or self._times.lease
        if self.holder not in (None, self.identity):
            self._safe_until = 0.0
            if time.monotonic() < self._seen_at + patience:
                return
        transitions = int(spec.get("leaseTransitions") or 0)
        try:
            self._cluster.replace_lease(self._mine(lease, transitions + (self.holder != self.identity)))
        except ClusterError as error:
            if error.status == CONFLICT:
                self._safe_until = 0.0  # another one was faster
                return
            raise
        self._won(asked)

    def _won(self, asked: float) -> None:
        self.holder = self.identity
        self._safe_until = asked + self._times.renew

    def _mine(self, lease: Object, transitions: int) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = lease.get("spec") or {}
        acquired = spec.get("acquireTime") if spec.get("holderIdentity") == self.identity else None
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": lease["metadata"],
            "spec": {
                **spec,
                "holderIdentity": self.identity,
                "leaseDurationSeconds": self._times.lease,
                "acquireTime": acquired or now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }

    def _release(self) -> None:
        """Give the lease back, so that the next one need not wait until it runs out."""
        try:
            lease = self._cluster.lease(self.name)
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                lease["spec"].update(holderIdentity="", leaseDurationSeconds=1)
                self._cluster.replace_lease(lease, _RELEASE_TIMEOUT)
                log.info("%s gave the lease back", self.identity)
        except ClusterError as error:
            log.warning("the lease could not be given back: %s", error)
