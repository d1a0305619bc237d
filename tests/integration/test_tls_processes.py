"""Sites with certificates as real processes: they train together over mutual TLS, and refuse what they should."""

from __future__ import annotations

import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from certified import authority, context, issue, lay
from concord.apps.local import HOST
from concord.certificates import Authority
from concord.mailbox.server import EmbeddedServer

JOB = """\
name: test
task: digits
sites: 2
split: {classes: [5, 5]}
topology: ring
training: {rounds: 2000, pace: 0.05, local_steps: 2, learning_rate: 0.1}
"""
PATIENCE = 60.0
Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    (tmp_path / "job.yaml").write_text(JOB)
    made = authority()
    for site in ("N1", "N2"):
        lay(tmp_path / site, issue(made, site))
    return made


@pytest.fixture
def redis(temporary: Path) -> Iterator[dict[str, str]]:
    servers = {site: EmbeddedServer(temporary / site) for site in ("N1", "N2")}
    for site, server in servers.items():
        (temporary / site).mkdir()
        server.start()
    yield {site: server.url for site, server in servers.items()}
    for server in servers.values():
        server.stop()


def status(port: int) -> dict[str, Any]:
    try:
        return dict(httpx.get(f"http://{HOST}:{port}/v1/status", timeout=5.0).json()["exchange"])
    except httpx.HTTPError:
        return {}


def wait_for(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def received(port: int, neighbour: str) -> int:
    return int(status(port).get("edges", {}).get(neighbour, {}).get("received", 0))


def test_two_sites_train_over_mutual_tls_and_follow_their_certificates(
    command: Start,
    redis: dict[str, str],
    base_port: int,
    tmp_path: Path,
    ca: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports = {"N1": (base_port, base_port + 1), "N2": (base_port + 2, base_port + 3)}
    started = {}
    for site, other in (("N1", "N2"), ("N2", "N1")):
        plain, door = ports[site]
        monkeypatch.setenv("CONCORD_TLS_DIR", str(tmp_path / site))
        monkeypatch.setenv("CONCORD_EXCHANGE_PORT", str(door))
        monkeypatch.setenv("CONCORD_PEERS", f"{other}=https://localhost:{ports[other][1]}")
        places = ("--redis-url", redis[site], "--state-dir", str(tmp_path / "state" / site), "--port", str(plain))
        started[site] = command("site", "--job", "job.yaml", "--site", site, *places)
    plain, door = ports["N1"]
    wait_for(lambda: received(plain, "N2") > 0, "nothing came to N1")
    wait_for(lambda: received(ports["N2"][0], "N1") > 0, "nothing came to N2")

    slot, claim = "/v1/inbox/N2", {"concord-site": "N2"}
    assert httpx.put(f"http://{HOST}:{plain}{slot}", headers=claim).status_code == 404
    assert httpx.get(f"http://{HOST}:{plain}/v1/models").status_code == 200
    for caller in (context(tmp_path / "N2", with_certificate=False), context(_foreign(tmp_path, ca))):
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            httpx.put(f"https://localhost:{door}{slot}", headers=claim, verify=caller)
    assert status(plain)["tls"]["refused"] == 2
    assert (
        httpx.get(f"https://localhost:{door}/v1/outbox/N1", headers=claim, verify=context(tmp_path / "N2")).status_code
        == 403
    )

    lay(tmp_path / "N1", issue(ca, "N1"))
    wait_for(lambda: status(plain)["tls"]["renewals"] == 1, "the new certificate was not taken")
    counts = received(plain, "N2"), received(ports["N2"][0], "N1")
    wait_for(lambda: received(plain, "N2") > counts[0], "nothing came to N1 any more")
    wait_for(lambda: received(ports["N2"][0], "N1") > counts[1], "nothing came to N2 any more")

    for process in started.values():
        process.send_signal(signal.SIGTERM)
    for process in started.values():
        _, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, "Traceback" in errors) == (0, False), errors


def _foreign(folder: Path, ca: Authority) -> Path:
    return lay(folder / "foreign", issue(authority(), "N2", trusting=ca.bundle))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("exchange", (), "set --tls-dir or CONCORD_TLS_DIR to a folder with tls.crt, tls.key and ca.crt; or set"),
        ("exchange", ("--tls-dir", "nowhere"), "nowhere/tls.crt is missing"),
        ("exchange", ("--tls-dir", "N1", "--insecure"), "contradict each other"),
        ("exchange", ("--tls-dir", "N1", "--peers", "N2=http://n2:8443"), "calls https:// addresses only"),
        ("site", (), "set --tls-dir or CONCORD_TLS_DIR to a folder with tls.crt, tls.key and ca.crt; or set"),
        ("site", ("--tls-dir", "N2"), "N2/tls.crt names spiffe://test/site/N2; it should name spiffe://test/site/N1"),
    ],
)
def test_a_process_that_cannot_be_safe_does_not_start(
    command: Start, base_port: int, ca: Authority, name: str, arguments: tuple[str, ...], message: str
) -> None:
    process = command(name, "--job", "job.yaml", "--site", "N1", "--port", str(base_port), *arguments)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert message in errors
    assert errors.count("\n") == 1
