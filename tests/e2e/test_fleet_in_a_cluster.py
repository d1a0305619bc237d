"""The fleet in a real cluster: the one that KUBECONFIG names, if CONCORD_E2E is set. `make e2e` runs it.

It makes a namespace with Services and EndpointSlices, but no pods, and deletes it at the end.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from kubernetes import client, config

from concord.apps.fleet import Fleet, Pace
from concord.cluster.api import Cluster
from concord.fleet.settings import FleetSettings
from concord.job.membership import Membership

FEDERATION = "e2e"
SITES = ("N1", "N2", "N3", "N4", "N5")
PATIENCE = 60.0

Found = TypeVar("Found")


@pytest.fixture(scope="module")
def api() -> client.ApiClient:
    config.load_kube_config(config_file=os.environ["KUBECONFIG"])
    return client.ApiClient()


@pytest.fixture
def namespace(api: client.ApiClient) -> Iterator[str]:
    core = client.CoreV1Api(api)
    name = f"concord-e2e-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


def make_site(api: client.ApiClient, namespace: str, site: str, ready: bool = True) -> None:
    name = site.lower()
    client.CoreV1Api(api).create_namespaced_service(
        namespace,
        {
            "metadata": {
                "name": name,
                "labels": {
                    "app.kubernetes.io/part-of": "concord",
                    "concord.dev/federation": FEDERATION,
                    "concord.dev/site": site,
                },
                "annotations": {"concord.dev/url": f"https://{name}.{namespace}.svc:8443"},
            },
            "spec": {"ports": [{"port": 8443}]},
        },
    )
    client.DiscoveryV1Api(api).create_namespaced_endpoint_slice(
        namespace,
        {
            "metadata": {"name": f"{name}-e2e", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"port": 8443}],
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": ready}}],
        },
    )


def reasons(api: client.ApiClient, namespace: str) -> set[str]:
    """Of the Events so far."""
    return {event.reason for event in client.EventsV1Api(api).list_namespaced_event(namespace).items}


def until_sites(api: client.ApiClient, namespace: str, *sites: str) -> Membership:
    """The document once it has exactly these sites."""
    core = client.CoreV1Api(api)

    def there() -> Membership | None:
        found = core.list_namespaced_config_map(namespace, field_selector=f"metadata.name={FEDERATION}-topology").items
        if not found:
            return None
        topology = Membership.from_json(found[0].data["topology.json"])
        return topology if set(topology.sites) == set(sites) else None

    return until(there)


def until(condition: Callable[[], Found | None]) -> Found:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)  # the server is another's: it can only be asked again
    return found


def test_sites_come_and_go_and_another_replica_takes_over(api: client.ApiClient, namespace: str) -> None:
    running: list[Fleet] = []

    def start(identity: str) -> None:
        cluster = Cluster.connect(namespace, os.environ)
        running.append(Fleet(cluster, FleetSettings(FEDERATION, identity=identity), Pace()))
        running[-1].start()

    for site in SITES[:4]:
        make_site(api, namespace, site)
    try:
        start("fleet-a")
        first = until_sites(api, namespace, *SITES[:4])
        make_site(api, namespace, SITES[4])
        second = until_sites(api, namespace, *SITES)
        assert second.version == first.version + 1
        start("fleet-b")
        running[0].stop()
        client.CoreV1Api(api).delete_namespaced_service("n2", namespace)
        third = until_sites(api, namespace, "N1", "N3", "N4", "N5")
        assert third.version == second.version + 1
        until(lambda: reasons(api, namespace) >= {"SiteJoined", "SiteLeft", "TopologyChanged"})
    finally:
        for fleet in running:
            fleet.stop()
