"""A namespace with a federation in it, behind the API server of `kube_api`: sites as a chart would make them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from kubernetes import client

from concord.apps.fleet import Fleet, Pace
from concord.cluster.api import Cluster
from concord.cluster.election import ElectionTimes
from concord.fleet.settings import FleetSettings
from concord.job.membership import Membership
from kube_api import KubeApi, Object, Rule

NAMESPACE = "edge"
FEDERATION = "digits"
DOCUMENT = "digits-topology"

PACE = Pace(
    debounce=0.02, resync=0.2, status=0.05, watch=5, backoff=0.02, election=ElectionTimes(lease=1, renew=0.6, retry=0.1)
)
"""Quick, so that tests are."""

ROLE: list[Rule] = [
    ("services", frozenset({"list", "watch"}), None),
    ("pods", frozenset({"list", "watch"}), None),
    ("endpointslices", frozenset({"list", "watch"}), None),
    ("configmaps", frozenset({"create"}), None),
    ("configmaps", frozenset({"get", "update"}), frozenset({DOCUMENT, f"{DOCUMENT}-status"})),
    ("leases", frozenset({"create"}), None),
    ("leases", frozenset({"get", "update"}), frozenset({f"{FEDERATION}-fleet"})),
    ("events", frozenset({"create"}), None),
]
"""What the docstring of `concord.apps.fleet` asks for; the server refuses everything else."""

Found = TypeVar("Found")


class Namespace:
    """What a person, a chart or a kubelet does to a namespace, and what can be read there."""

    def __init__(self, api: KubeApi) -> None:
        self.api = api

    # --- sites -----------------------------------------------------------------------------------------------

    def add(self, *sites: str, ready: bool = True, **annotations: str) -> None:
        """Services with an EndpointSlice each; the names of the Services are the sites' in lower case."""
        for site in sites:
            self.add_service(site.lower(), site, **annotations)
            self.set_ready(site, ready)

    def add_service(self, name: str, site: str, **annotations: str) -> None:
        """A Service alone."""
        notes = {"concord.dev/url": f"https://{name}.{NAMESPACE}.svc:8443"}
        notes.update({f"concord.dev/{key}": value for key, value in annotations.items()})
        labels = {
            "app.kubernetes.io/part-of": "concord",
            "concord.dev/federation": FEDERATION,
            "concord.dev/site": site,
        }
        meta = {"name": name, "labels": labels, "annotations": notes}
        self.api.put("services", NAMESPACE, {"metadata": meta, "spec": {"selector": {"app": name}}})

    def set_ready(self, site: str, ready: bool) -> None:
        """What the EndpointSlice says."""
        name = site.lower()
        self.api.put(
            "endpointslices",
            NAMESPACE,
            {
                "metadata": {"name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
                "endpoints": [{"conditions": {"ready": ready}}],
            },
        )

    def remove(self, site: str) -> None:
        """The Service goes, and what belongs to it."""
        self.api.delete("services", NAMESPACE, site.lower())
        self.api.delete("endpointslices", NAMESPACE, f"{site.lower()}-x")

    # --- documents -------------------------------------------------------------------------------------------

    def write(self, text: str, **more: str) -> None:
        """The ConfigMap as a chart or a person writes it."""
        meta = {"name": DOCUMENT, "labels": {"app.kubernetes.io/managed-by": "Helm"}}
        self.api.put("configmaps", NAMESPACE, {"metadata": meta, "data": {"topology.json": text, **more}})

    def text(self) -> str:
        """The document as it stands; empty if there is none."""
        found = self.api.get("configmaps", NAMESPACE, DOCUMENT)
        return found["data"].get("topology.json", "") if found else ""

    def topology(self) -> Membership | None:
        """The document, or None if there is none or it is broken."""
        try:
            return Membership.model_validate_json(self.text())
        except ValueError:
            return None

    def status(self) -> dict[str, Any]:
        """What the leader says in the status ConfigMap."""
        found = self.api.get("configmaps", NAMESPACE, f"{DOCUMENT}-status")
        return json.loads(found["data"]["status.json"]) if found else {}

    def events(self, reason: str) -> list[Object]:
        """The Events of a reason."""
        return [event for event in self.api.all("events", NAMESPACE) if event["reason"] == reason]

    def lease_holder(self) -> str | None:
        """Who holds the Lease; empty if it was given back."""
        lease = self.api.get("leases", NAMESPACE, f"{FEDERATION}-fleet")
        return lease["spec"]["holderIdentity"] if lease else None

    # --- waiting ---------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], Found | None], what: str = "") -> Found:
        """What `condition` gives once it is true."""
        return self.api.until(condition, what)

    def until_sites(self, *sites: str) -> Membership:
        """The document once it has exactly these sites."""

        def there() -> Membership | None:
            found = self.topology()
            return found if found is not None and set(found.sites) == set(sites) else None

        return self.until(there, f"sites {', '.join(sites)} in {self.text()}")

    def until_not_ready(self, *sites: str) -> dict[str, Any]:
        """The status once exactly these sites are not ready."""

        def told() -> dict[str, Any] | None:
            status = self.status()
            return status if status.get("not_ready") == sorted(sites) else None

        return self.until(told, f"not ready: {sites}")

    # --- fleets ----------------------------------------------------------------------------------------------

    def fleet(self, identity: str = "fleet-a", **settings: Any) -> Fleet:
        """A replica, with the real client; the caller starts and stops it."""
        configuration = client.Configuration(host=self.api.url)
        configuration.retries = False
        cluster = Cluster(client.ApiClient(configuration), NAMESPACE, timeout=5.0)
        return Fleet(cluster, FleetSettings(FEDERATION, identity=identity, **settings), PACE)
