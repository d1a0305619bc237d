"""One site as three processes beside a whole one, as on a cluster: they converge, answer, and survive any kill."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from concord.apps.local import HOST
from concord.mailbox.server import EmbeddedServer
from waiting import wait_until

JOB = """\
name: split
task: digits
sites: 2
split: {classes: [5, 5]}
topology: ring
training: {rounds: 900, pace: 0.04, local_steps: 16, learning_rate: 0.1}
checkpoint: {every: 0.5}
serving: {every: 0.3}
"""
Process = subprocess.Popen[str]


class SplitSite:
    """Site N1 in three processes at ports `base`, `base + 1` and `base + 3`, and N2 whole at `base + 2`."""

    def __init__(self, command: Callable[..., Process], base: int, folder: Path, urls: dict[str, str]) -> None:
        (folder / "job.yaml").write_text(JOB)
        (folder / "secret").write_text("a secret that all sites of the test share")
        self._command, self._base, self._folder, self._redis = command, base, folder, urls
        self.running = {name: self.start(name) for name in ("trainer", "exchange", "inference")}
        self._start_process("site", "N2", base + 2, f"N1=http://{HOST}:{base}")

    def start(self, name: str) -> Process:
        port = self._base + {"exchange": 0, "inference": 1, "trainer": 3}[name]
        return self._start_process(name, "N1", port, f"N2=http://{HOST}:{self._base + 2}")

    def _start_process(self, name: str, site: str, port: int, peers: str) -> Process:
        places = ["--redis-url", self._redis[site], "--state-dir", str(self._folder / site), "--port", str(port)]
        return self._command(
            name, "--job", "job.yaml", "--site", site, "--secret-file", "secret", "--peers", peers, *places
        )

    def status(self, offset: int) -> dict[str, Any]:
        try:
            return dict(httpx.get(f"http://{HOST}:{self._base + offset}/v1/status", timeout=5.0).json())
        except httpx.HTTPError:
            return {}

    def rounds(self, offset: int = 0) -> int:
        return int(self.status(offset).get("progress", {}).get("round", 0))

    def finished(self) -> bool:
        return all(self.status(offset).get("progress", {}).get("phase") == "finished" for offset in (0, 2))


@pytest.fixture
def split_site(
    command: Callable[..., Process], base_port: int, tmp_path: Path, temporary: Path
) -> Callable[[dict[str, str]], SplitSite]:
    return lambda urls: SplitSite(command, base_port, tmp_path, urls)


@pytest.mark.timeout(600)  # 900 rounds
def test_three_processes_are_one_site_whatever_is_killed(
    split_site: Callable[[dict[str, str]], SplitSite], base_port: int, temporary: Path
) -> None:
    for name in ("N1", "N2"):
        (temporary / name).mkdir()
    with EmbeddedServer(temporary / "N1") as ours, EmbeddedServer(temporary / "N2") as theirs:
        site = split_site({"N1": ours.url, "N2": theirs.url})
        for at_round, victim in ((20, "exchange"), (50, "trainer"), (80, "inference")):
            wait_until(lambda at=at_round: site.rounds() >= at, f"round {at_round}")  # type: ignore[misc]
            site.running[victim].send_signal(signal.SIGKILL)
            site.running[victim].wait()
            site.running[victim] = site.start(victim)
        wait_until(site.finished, "both sites finished", progress=lambda: site.rounds(0) + site.rounds(2))
        statuses = [site.status(offset)["progress"] for offset in (0, 2)]
        assert min(status["metrics"]["accuracy"] for status in statuses) >= 0.95
        assert statuses[0]["incarnation"] == 2
        for offset in range(4):
            for question in ("startupz", "healthz", "readyz"):
                assert httpx.get(f"http://{HOST}:{base_port + offset}/{question}").status_code == 200, (
                    offset,
                    question,
                )
        assert httpx.get(f"http://{HOST}:{base_port + 3}/v1/status").json()["progress"]["phase"] == "finished"
        wait_until(lambda: served(base_port + 1) == statuses[0]["round"], "the last model is served")
        answer = httpx.post(f"http://{HOST}:{base_port + 1}/v1/predict", json={"inputs": [0.0] * 64})
        assert answer.json()["model"]["round"] == statuses[0]["round"]


def served(port: int) -> int | None:
    try:
        models = httpx.get(f"http://{HOST}:{port}/v1/models").json()["models"]
    except httpx.HTTPError:
        return None
    return int(models[0]["round"]) if models else None
