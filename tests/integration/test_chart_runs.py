"""Two sites as the chart would run them, without a cluster: its variables, its job, its document, and its `helm test`.

Only addresses and folders are moved to this machine. What the variables mean, and whether the test of the chart passes
against real doors, shows here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from chart import CHART, NAMESPACE, Pod, Release, with_values
from concord.mailbox.server import EmbeddedServer
from fake_cluster import fake_cluster, write_kubeconfig

SITES = ("a", "B")
NAME = "localhost"
"""Of this machine, as certificates name it."""
PROOFS = {"shared-secret": {"tls.mode": "disabled"}, "certificates": {}}
VALUES = {
    "sites": [{"name": site, "exchange": {"hostnames": [NAME]}} for site in SITES],
    "job.split": {"kind": "iid"},
    "job.training.pace": 0.1,
}


class Cluster:
    """Stands in for a cluster that would run a release: `folder` is every pod's file system."""

    def __init__(self, release: Release, folder: Path, base_port: int) -> None:
        self.release = release
        self.folder = folder
        self.rest = {site: base_port + place for place, site in enumerate(SITES)}
        self.doors = {site: base_port + len(SITES) + place for place, site in enumerate(SITES)}
        self._write("job/job.yaml", release.job)
        self._write("topology/topology.json", self.moved(release.membership))
        if any(volume["name"] == "secret" for volume in self.pod("test").spec["volumes"]):
            self._write("secret/secret", "a secret that all sites of the test share")

    def _write(self, name: str, text: str | bytes) -> None:
        path = self.folder / "etc" / "concord" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def moved(self, text: str) -> str:
        """A text with addresses of the cluster replaced by those on this machine."""
        for site in SITES:
            text = text.replace(f"concord-{site.lower()}-exchange.{NAMESPACE}.svc:8443", f"{NAME}:{self.doors[site]}")
            for service in ("exchange", "inference"):
                plain = f"concord-{site.lower()}-{service}.{NAMESPACE}.svc:8080"
                text = text.replace(plain, f"{NAME}:{self.rest[site]}")
        assert ".svc" not in text
        return text

    def certify(self) -> None:
        """What the hook does before an install, and what a kubelet then mounts; nothing if there is no such job."""
        for job in (pod for pod in self.release.pods() if pod.component == "certificates"):
            (container,) = job.spec["containers"]
            with fake_cluster(NAMESPACE) as secrets:
                write_kubeconfig(self.folder / "kubeconfig", secrets.url)
                command = [sys.executable, "-m", "concord", *container["args"]]
                environment = {**os.environ, "KUBECONFIG": str(self.folder / "kubeconfig")}
                subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=60)
                for site in SITES:
                    (volume,) = (one for one in self.pod("site", site).spec["volumes"] if one["name"] == "tls")
                    for name, content in secrets.content(volume["secret"]["secretName"]).items():
                        self._write(f"tls/{site}/{name}", content)

    def pod(self, component: str, site: str | None = None) -> Pod:
        (found,) = (pod for pod in self.release.pods() if (pod.component, pod.site) == (component, site))
        return found

    def environment(self, site: str, redis_url: str) -> dict[str, str]:
        """The variables of a site's container, with its Redis where it is here."""
        (container,) = self.pod("site", site).spec["containers"]
        given = {variable["name"]: variable.get("value", "") for variable in container["env"]}
        del given["REDIS_PASSWORD"]
        places = {name: f"{self.folder}{value}" for name, value in given.items() if value.startswith("/etc/")}
        own = {name: f"{self.folder}/{site}{value}" for name, value in given.items() if value.startswith("/var/")}
        moved = {"CONCORD_REDIS_URL": redis_url, "CONCORD_PORT": str(self.rest[site])}
        if "CONCORD_TLS_DIR" in given:
            moved |= {
                "CONCORD_TLS_DIR": f"{places['CONCORD_TLS_DIR']}/{site}",
                "CONCORD_EXCHANGE_PORT": str(self.doors[site]),
            }
        return given | places | own | moved

    def start(self, site: str, redis_url: str) -> subprocess.Popen[str]:
        (container,) = self.pod("site", site).spec["containers"]
        return subprocess.Popen(
            [sys.executable, "-m", "concord", *container["args"]],
            env={**os.environ, **self.environment(site, redis_url)},
            cwd=self.folder,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


@pytest.fixture(params=PROOFS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path, temporary: Path, base_port: int) -> Iterator[Cluster]:
    """Both sites are running, with a Redis each."""
    values: Mapping[str, object] = PROOFS[request.param]
    cluster = Cluster(with_values(**VALUES, **values), tmp_path, base_port)
    cluster.certify()
    started = []
    with ExitStack() as stack:
        for site in SITES:
            (temporary / site).mkdir()
            redis = stack.enter_context(EmbeddedServer(temporary / site))
            started.append(cluster.start(site, redis.url))
        yield cluster
        for process in started:
            assert process.poll() is None, process.communicate()[1]
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=30)
            assert process.returncode == 0


@pytest.fixture
def helm_test(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script of `helm test`, with its folders where they are here and the plan that the chart gives it."""
    source = importlib.util.spec_from_file_location("helm_test", CHART / "files" / "helm_test.py")
    assert source is not None
    assert source.loader is not None
    script = importlib.util.module_from_spec(source)
    monkeypatch.setitem(sys.modules, "helm_test", script)
    source.loader.exec_module(script)
    monkeypatch.setattr(script, "SECRET", cluster.folder / "etc" / "concord" / "secret" / "secret")
    monkeypatch.setattr(script, "TLS", cluster.folder / "etc" / "concord" / "tls")
    monkeypatch.setattr(script, "PAUSE", 0.1)
    (container,) = cluster.pod("test").spec["containers"]
    (plan,) = (variable["value"] for variable in container["env"] if variable["name"] == "TEST_PLAN")
    monkeypatch.setenv("TEST_PLAN", cluster.moved(plan))
    return script


def test_the_test_of_the_chart_passes_where_all_is_well_and_not_where_it_is_not(
    helm_test: ModuleType, cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    helm_test.main()
    said = capsys.readouterr().out
    plan = helm_test.Plan(**json.loads(os.environ["TEST_PLAN"]))
    assert f"{plan.receiver} took an update of" in said
    assert "refused a wrong name: 403" in said
    assert f"{plan.sender} predicts with version" in said
    assert ("did not answer a caller without a certificate" in said) is plan.tls
    assert "all is well" in said
    if plan.tls:
        # Whoever has no certificate of the federation is no better than one who has none at all.
        monkeypatch.setattr(helm_test, "trust", lambda site: ssl.create_default_context())
        failure, reason = httpx.ConnectError, "CERTIFICATE_VERIFY_FAILED"
    else:
        monkeypatch.setattr(helm_test, "SECRET", cluster.folder / "no-secret")
        failure, reason = SystemExit, "not 403"
    with pytest.raises(failure, match=reason):
        helm_test.check_refusals(plan, plan.receiver)
