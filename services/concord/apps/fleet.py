"""The fleet: looks after a federation in one Kubernetes namespace. The decisions are in `concord.fleet`.

It follows Services, EndpointSlices and pods, decides which sites are members and who exchanges with whom, and writes
that into a ConfigMap which the sites follow. Of several replicas the one that holds the Lease writes. It needs this
role, in its own namespace and nowhere else:

    apiGroups                resources        verbs                 resourceNames
    ""                       services, pods   list, watch
    discovery.k8s.io         endpointslices   list, watch
    ""                       configmaps       create
    ""                       configmaps       get, update           <config map>, <config map>-status
    coordination.k8s.io      leases           create
    coordination.k8s.io      leases           get, update           <lease>
    events.k8s.io            events           create

`create` cannot be limited by name. Nothing is ever deleted, and no Secret is read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from concord.apps.fleet_news import News, Regarding
from concord.apps.fleet_routes import create_app
from concord.apps.serve import Server, bind
from concord.apps.serve import run as serve_process
from concord.cluster.api import CONFLICT, PODS, SERVICES, SLICES, Cluster, Object
from concord.cluster.election import Election, ElectionTimes
from concord.cluster.watched import WATCH_SECONDS, Watched
from concord.errors import ClusterError
from concord.fleet.document import KEY, Found, go_on_from
from concord.fleet.plan import Decision, decide
from concord.fleet.presence import Presence, Wanted
from concord.fleet.report import report
from concord.fleet.settings import FleetSettings
from concord.fleet.sites import FEDERATION, PART_OF, Problem, Sighting, read_sites, selector
from concord.job.membership import Membership
from concord.transport.backoff import DecorrelatedJitter

log = logging.getLogger(__name__)

STATUS_KEY = "status.json"
_TRIES = 5
"""How often a write that met another one is decided anew before waiting."""
_LATEST = 10.0
"""Times `debounce`: a burst of changes is acted on by then, though it goes on."""
_STUCK = 90.0
"""Seconds after which a loop that did not turn counts as broken."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. After a change it waits until `debounce` passed without another, so that a burst is one decision.

    `resync` is how often the document is looked at though nothing was reported, `status` the least time between two
    writes of the status, `watch` how long one watch is left open, `backoff` the least wait after a failure.
    """

    debounce: float = 0.5
    resync: float = 15.0
    status: float = 5.0
    watch: int = WATCH_SECONDS
    backoff: float = 0.5
    election: ElectionTimes = field(default_factory=ElectionTimes)


def run(settings: FleetSettings) -> None:
    """Look after the federation until SIGTERM or SIGINT; then the lease is given back."""
    cluster = Cluster.connect(settings.namespace, os.environ)
    listener = bind(settings.host, settings.port)
    fleet = Fleet(cluster, settings, Pace())
    server = Server(create_app(fleet), listener, on_stop=fleet.request_stop, grace=1)
    fleet.start()
    log.info("federation %s in namespace %s, as %s", settings.federation, cluster.namespace, settings.identity)
    serve_process(server, at_end=lambda: asyncio.to_thread(fleet.stop))


class Fleet:
    """Watches, decides and writes, in threads of its own from `start` to `stop`."""

    def __init__(self, cluster: Cluster, settings: FleetSettings, pace: Pace) -> None:
        self._cluster = cluster
        self._settings = settings
        self._pace = pace
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._labels = {SERVICES: selector(settings.federation), PODS: selector(settings.federation), SLICES: ""}
        self._watched = {
            kind: Watched(cluster, kind, labels, self._wake.set, self._backoff(), pace.watch)
            for kind, labels in self._labels.items()
        }
        self._election = Election(cluster, settings.lease_name, settings.identity, self._wake.set, pace.election)
        self._news = News(cluster, settings.identity)
        self._presence = Presence(settings.grace)
        self._last_good: Membership | None = None
        self._sightings: Mapping[str, Sighting] = {}
        self._wanted = Wanted({}, None)
        self._waiting: tuple[str, ...] = ()
        self._problems: list[Problem] = []
        self._failure: str | None = None
        self._written: dict[str, object] | None = None
        self._written_at = float("-inf")
        self._turned = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    def _backoff(self) -> DecorrelatedJitter:
        # Not a secret: replicas should only not all come back at once.
        return DecorrelatedJitter(self._pace.backoff, 30.0, random.Random())  # noqa: S311

    # --- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch, and to stand for election."""
        for watched in self._watched.values():
            watched.start()
        self._election.start()
        self._thread.start()

    def request_stop(self) -> None:
        """Write nothing more from now on."""
        self._stopping.set()
        self._election.stop()
        for watched in self._watched.values():
            watched.stop()
        self._wake.set()

    def stop(self, timeout: float = 3.0) -> None:
        """Give the lease back and end the threads, as far as they end in time."""
        self.request_stop()
        deadline = time.monotonic() + timeout
        joins = [self._election.join, self._thread.join, *(watched.join for watched in self._watched.values())]
        for join in joins:
            join(max(0.0, deadline - time.monotonic()))
        self._cluster.close()

    # --- questions, from other threads -----------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the sites were ever listed."""
        return all(watched.synced for watched in self._watched.values())

    @property
    def alive(self) -> bool:
        """Whether all threads live and the loop turns."""
        turning = time.monotonic() - self._turned < self._pace.resync + _STUCK
        watching = all(watched.alive for watched in self._watched.values())
        return watching and self._election.alive and self._thread.is_alive() and turning

    def status(self) -> dict[str, object]:
        """What this replica knows; the leader's is in the status ConfigMap as well."""
        failures = [watched.problem for watched in self._watched.values()]
        return {
            **self._report(),
            "leader": self._election.holder,
            "identity": self._settings.identity,
            "leading": self._election.leading,
            "synced": self.started,
            "failures": [failure for failure in (*failures, self._failure) if failure],
        }

    # --- the loop --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = self._backoff()
        pause = 0.0
        while not self._stopping.is_set():
            self._wait(pause)
            if self._stopping.is_set():
                return
            self._turned = time.monotonic()
            try:
                pause = self._turn()
                self._failure = None
                backoff.reset()
            except ClusterError as error:
                self._failure = str(error)
                log.warning("%s; trying again", error)
                pause = backoff.next()
            except Exception:
                log.critical("the fleet broke; it must be started anew", exc_info=True)
                raise

    def _wait(self, pause: float) -> None:
        """Until something changed and it is quiet again, or until the pause is over."""
        if not self._wake.wait(pause):
            return
        latest = time.monotonic() + _LATEST * self._pace.debounce
        while self._wake.is_set() and time.monotonic() < latest and not self._stopping.is_set():
            self._wake.clear()
            self._wake.wait(self._pace.debounce)
        self._wake.clear()

    def _turn(self) -> float:
        """Look, decide and write once; gives the seconds after which to look again though nothing was reported."""
        if not self.started:
            return self._pace.resync
        leading = self._election.leading
        found = self._look()
        if leading:
            self._write_status(found)
        else:
            self._written = None
        until = self._wanted.until
        due = [self._pace.resync]
        if until is not None:
            due.append(max(0.0, until - time.time()))
        if leading and self._written != self._report():
            due.append(max(0.05, self._written_at + self._pace.status - time.monotonic()))
        return min(due)

    def _look(self) -> Object | None:
        """Bring the ConfigMap in line with the sites, if this replica leads; gives the status ConfigMap if read."""
        status_map: Object | None = None
        for _ in range(_TRIES):
            current = self._cluster.config_map(self._settings.document)
            if self._last_good is None:
                status_map = self._cluster.config_map(f"{self._settings.document}-status")
                self._last_good = _copy_in(status_map)
            found = go_on_from(_text(current), self._last_good)
            objects = {kind: watched.objects() for kind, watched in self._watched.items()}
            decision = self._decide(found, objects)
            if decision is not None and decision.left:
                # Nobody is taken out on old news: the watches may be behind after an outage.
                objects = {kind: self._cluster.list(kind, self._labels[kind])[0] for kind in self._watched}
                decision = self._decide(found, objects)
            self._note(found)
            if not self._election.leading:
                self._last_good = found.membership if not found.rewrite else self._last_good
                return status_map
            self._news.problems(self._problems, self._regarding(current))
            if decision is None or (decision.membership is found.membership and not found.rewrite):
                self._last_good = found.membership
                return status_map
            try:
                written = self._write(current, decision.membership)
            except ClusterError as error:
                if error.status != CONFLICT:
                    raise
                log.info("the ConfigMap changed at the same time; deciding anew")
                continue
            self._last_good = decision.membership
            self._news.changed(decision, self._regarding(written))
            return status_map
        raise ClusterError(f"ConfigMap {self._settings.document}: somebody else writes it all the time", CONFLICT)

    def _decide(self, found: Found, objects: Mapping[str, list[Object]]) -> Decision | None:
        self._sightings, self._problems = read_sites(objects[SERVICES], objects[SLICES], objects[PODS])
        standing = found.membership
        self._wanted = self._presence.update(self._sightings, standing.sites if standing else {}, time.time())
        decision = decide(standing, self._wanted.sites, self._settings.degree, found.floor)
        self._waiting = decision.waiting if decision else ()
        return decision

    def _note(self, found: Found) -> None:
        """Add what concerns the whole federation to the problems of single Services."""
        name = self._settings.document
        if found.problem:
            self._problems.append(Problem("BadTopology", f"ConfigMap {name}: {found.problem}", name=name))
        if found.membership is not None and not self._wanted.sites:
            note = f"no site of {self._settings.federation} is left; the last topology stands"
            self._problems.append(Problem("NoSites", note, name=name))
        self._problems.extend(
            Problem("NoPlace", f"site {site} can exchange with no site that has room for it", name=name)
            for site in self._waiting
        )

    # --- writing ---------------------------------------------------------------------------------------------

    def _write(self, current: Object | None, membership: Membership) -> Object:
        return self._put(current, self._settings.document, {KEY: membership.to_json()})

    def _put(self, current: Object | None, name: str, data: Mapping[str, str]) -> Object:
        """Create a ConfigMap, or update it as it was read; whatever else is in it stays."""
        if current is None:
            labels = {PART_OF: "concord", FEDERATION: self._settings.federation}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}
            return self._cluster.create_config_map({**body, "data": dict(data)})
        return self._cluster.replace_config_map({**current, "data": {**(current.get("data") or {}), **data}})

    def _write_status(self, current: Object | None) -> None:
        """At most once in a while, and only what changed; a copy of the document goes with it, to fall back on."""
        now = self._report()
        if now == self._written or time.monotonic() < self._written_at + self._pace.status:
            return
        name = f"{self._settings.document}-status"
        current = current or self._cluster.config_map(name)
        updated = datetime.now(UTC).isoformat(timespec="seconds")
        shown = {**now, "leader": self._settings.identity, "updated": updated}
        data = {STATUS_KEY: json.dumps(shown, indent=1)}
        if self._last_good is not None:
            data[KEY] = self._last_good.to_json()
        if not self._election.leading:
            return
        self._put(current, name, data)
        self._written, self._written_at = now, time.monotonic()

    def _report(self) -> dict[str, object]:
        return report(
            self._settings.federation,
            self._last_good,
            self._sightings,
            self._presence,
            self._waiting,
            self._problems,
        )

    def _regarding(self, current: Object | None) -> Regarding:
        uid = current["metadata"].get("uid") if current else None
        return Regarding("ConfigMap", self._settings.document, self._cluster.namespace, uid)


def _text(config_map: Object | None) -> str | None:
    """The document; empty, and so broken, if the key is missing from a ConfigMap that is there."""
    return None if config_map is None else str((config_map.get("data") or {}).get(KEY, ""))


def _copy_in(status_map: Object | None) -> Membership | None:
    """The copy of the document that an earlier leader left; None if there is none that can be read."""
    found = go_on_from(_text(status_map), None)
    return None if found.rewrite else found.membership
