"""What the fleet tells people about: Events of the cluster, and lines of the log. Telling never stops the work."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from concord.cluster.api import Cluster
from concord.errors import ClusterError
from concord.fleet.plan import Decision
from concord.fleet.sites import Problem

log = logging.getLogger(__name__)

CONTROLLER = "concord.dev/fleet"
_LONGEST_NOTE = 1000


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object that an Event is shown with."""

    kind: str
    name: str
    namespace: str
    uid: str | None


class News:
    """Tells each problem once, until it is gone and comes back."""

    def __init__(self, cluster: Cluster, identity: str) -> None:
        self._cluster = cluster
        self._identity = identity
        self._told: set[Problem] = set()

    def problems(self, problems: Iterable[Problem], topology: Regarding) -> None:
        """Warnings for those that are new; each about its own object, or else about the topology."""
        current = set(problems)
        heard = True
        for problem in sorted(current - self._told, key=lambda one: (one.reason, one.note)):
            log.warning("%s: %s", problem.reason, problem.note)
            about = topology
            if problem.kind == "Service":
                about = Regarding("Service", problem.name, topology.namespace, problem.uid)
            heard = heard and self._tell("Warning", problem.reason, "Watch", problem.note, about)
        self._told = current

    def changed(self, decision: Decision, topology: Regarding) -> None:
        """What was written: who joined, who left, and how many edges changed."""
        version = decision.membership.version
        note = (
            f"version {version}: {len(decision.membership.sites)} sites, {len(decision.membership.edges)} edges "
            f"({len(decision.added)} added, {len(decision.removed)} removed)"
        )
        log.info("topology %s", note)
        heard = self._tell("Normal", "TopologyChanged", "Write", note, topology)
        for reason, word, sites in (("SiteJoined", "joined", decision.joined), ("SiteLeft", "left", decision.left)):
            for site in sites:
                log.info("site %s %s", site, word)
                action = "Join" if word == "joined" else "Leave"
                heard = heard and self._tell("Normal", reason, action, f"site {site} {word}", topology)

    def _tell(self, kind: str, reason: str, action: str, note: str, about: Regarding) -> bool:
        """False if nobody answers: the others of a batch would only wait as long."""
        regarding = {"apiVersion": "v1", "kind": about.kind, "name": about.name, "namespace": about.namespace}
        if about.uid:
            regarding["uid"] = about.uid
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{about.name}.{uuid.uuid4().hex[:16]}", "namespace": about.namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._identity[:128],
            "type": kind,
            "reason": reason,
            "action": action,
            "note": note[:_LONGEST_NOTE],
            "regarding": regarding,
        }
        try:
            self._cluster.create_event(event)
        except ClusterError as error:
            log.warning("no Event %s: %s", reason, error)
            return error.status is not None
        return True
