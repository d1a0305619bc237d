"""Two sites as the chart would run them, without a cluster: its variables, its job, its document, and its `helm test`.

Only addresses and folders are moved to this machine. What the variables mean, and whether the test of the chart passes
against real doors, shows here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType

import pytest

from chart import CHART, Pod, Release, with_values
from concord.apps.local import HOST
from concord.mailbox.server import EmbeddedServer

SITES = ("a", "b")
PROOFS = {"shared-secret": {"tls.mode": "disabled"}}
JOB = {"job.split": {"kind": "iid"}, "job.training.pace": 0.1}


class Cluster:
    """Stands in for a cluster that would run a release: `folder` is every pod's file system."""

    def __init__(self, release: Release, folder: Path, base_port: int) -> None:
        self.release = release
        self.folder = folder
        self.ports = {site: base_port + place for place, site in enumerate(SITES)}
        self._write("job/job.yaml", release.job)
        self._write("topology/topology.json", self.moved(release.membership))
        self._write("secret/secret", "a secret that all sites of the test share")

    def _write(self, name: str, text: str) -> None:
        path = self.folder / "etc" / "concord" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def moved(self, text: str) -> str:
        """A text with addresses of the cluster replaced by those on this machine."""
        for site, port in self.ports.items():
            for service in ("exchange", "inference"):
                text = text.replace(f"concord-{site}-{service}.federation.svc:8080", f"{HOST}:{port}")
        assert ".svc" not in text
        return text

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
        return given | places | own | {"CONCORD_REDIS_URL": redis_url, "CONCORD_PORT": str(self.ports[site])}

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
    cluster = Cluster(with_values(sites=list(SITES), **JOB, **values), tmp_path, base_port)
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
    assert "b took an update of" in said
    assert "refused a wrong name: 403" in said
    assert "a predicts with version" in said
    assert "all is well" in said
    monkeypatch.setattr(helm_test, "SECRET", cluster.folder / "no-secret")
    with pytest.raises(SystemExit, match="not 403"):
        helm_test.check_refusals(helm_test.Plan(**json.loads(os.environ["TEST_PLAN"])), "b")
