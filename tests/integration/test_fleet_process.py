"""`concord fleet` as a process: how it begins, answers on its port, ends, and is replaced when it is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from cli import runner
from cluster import FEDERATION, NAMESPACE, ROLE, Namespace
from exposition import check, names_in, names_of, scrape, series_of
from kube_api import KubeApi
from waiting import wait_until

SITES = ("N1", "N2", "N3", "N4")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with KubeApi(ROLE) as api:
        yield Namespace(api)


Start = Callable[[str], tuple[subprocess.Popen[bytes], str]]


@pytest.fixture
def start(namespace: Namespace, tmp_path: Path) -> Iterator[Start]:
    """Starts a replica; gives the process and its URL once it answers. Whatever still runs at the end is killed."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": namespace.api.url}}],
                "users": [{"name": "test", "user": {}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}],
            }
        )
    )
    running: list[subprocess.Popen[bytes]] = []

    def started(identity: str) -> tuple[subprocess.Popen[bytes], str]:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CONCORD_")}
        environment |= {
            "KUBECONFIG": str(kubeconfig),
            "CONCORD_FLEET_FEDERATION": FEDERATION,
            "CONCORD_FLEET_IDENTITY": identity,
            "CONCORD_PORT": str(port),
        }
        with (tmp_path / f"{identity}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "concord", "fleet"], env=environment, stderr=log)
        running.append(process)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answer(f"{url}/healthz") == 200, f"{identity} has started")
        return process, url

    yield started
    for process in running:
        process.kill()
        process.wait()


def answer(url: str) -> int | None:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return None


def test_it_answers_and_ends_within_seconds_giving_the_lease_back(
    namespace: Namespace, start: Start, tmp_path: Path
) -> None:
    namespace.add(*SITES)
    process, url = start("fleet-a")
    namespace.until_sites(*SITES)
    for path in ("/startupz", "/healthz", "/readyz"):
        namespace.until(lambda path=path: answer(url + path) == 200, path)
    status = httpx.get(f"{url}/v1/status").json()
    assert (status["federation"], status["version"]) == ("digits", 1)
    assert (status["leader"], status["leading"]) == ("fleet-a", True)
    assert status["ready"] == list(SITES)
    text = scrape(url)
    assert names_in(text) == names_of("fleet")
    check(text)
    series = series_of(text)
    assert (series["concord_fleet_leading", ()], series["concord_fleet_members", ()]) == (1, len(SITES))
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)
    assert time.monotonic() - asked < 5
    said = (tmp_path / "fleet-a.log").read_text()
    assert process.returncode == 0, said
    assert "gave the lease back" in said
    assert namespace.lease_holder() == ""


def test_it_ends_within_seconds_though_the_server_is_away(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    process, _ = start("fleet-a")
    namespace.until_sites(*SITES)
    with namespace.api.away():
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=5)
    assert process.returncode == 0


def test_when_the_leader_is_killed_another_goes_on(namespace: Namespace, start: Start) -> None:
    namespace.add(*SITES)
    leader, _ = start("fleet-a")
    namespace.until_sites(*SITES)
    _, url = start("fleet-b")
    namespace.until(lambda: answer(f"{url}/readyz") == 200, "the other is ready, though it does not lead")
    leader.kill()
    leader.wait()
    # As if the dead one had asked for a short lease, so that the test need not wait out a usual one.
    lease = namespace.api.get("leases", NAMESPACE, "digits-fleet")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "fleet-a"
    lease["spec"]["leaseDurationSeconds"] = 1
    namespace.api.put("leases", NAMESPACE, lease)
    namespace.add("N5")
    topology = namespace.until_sites(*SITES, "N5")
    assert topology.version == 2
    assert namespace.lease_holder() == "fleet-b"


def test_outside_a_cluster_it_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = runner(capsys)("fleet", "--federation", "digits")
    assert outcome.code == 3
    assert "set KUBECONFIG" in outcome.err


def test_a_kubeconfig_that_is_none_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kubeconfig").write_text("current-context: nowhere\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    outcome = runner(capsys)("fleet", "--federation", "digits")
    assert outcome.code == 3
    assert "the cluster's configuration cannot be used" in outcome.err


def test_without_the_client_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    outcome = runner(capsys)("fleet", "--federation", "digits")
    assert outcome.code == 3
    assert "pip install 'concord-edge[cluster]'" in outcome.err


def test_a_wrong_setting_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = runner(capsys)("fleet", "--federation", "digits", "--degree", "1")
    assert outcome.code == 2
    assert "should be a whole number of at least 2" in outcome.err
