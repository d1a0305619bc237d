"""A federation that grows and shrinks while it runs: real processes follow a document, and none is started again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from concord.apps.local import HOST
from concord.mailbox.server import EmbeddedServer
from waiting import wait_until

JOB = """\
name: growing
task: digits
sites: {N1: {shard: 0}, N2: {shard: 1}, N3: {shard: 2}, N4: {shard: 3}}
split: {classes: [2, 3], shards: 4}
topology: ring
training: {rounds: null, pace: 0.05, local_steps: 16, learning_rate: 0.1}
evaluation: {every: 0.1}
"""
Process = subprocess.Popen[str]


class Federation:
    """Processes on consecutive ports from `base`, around one document."""

    def __init__(self, command: Callable[..., Process], base: int, folder: Path, redis: dict[str, str]) -> None:
        (folder / "job.yaml").write_text(JOB)
        (folder / "secret").write_text("a secret that all sites of the test share")
        self._command, self._base, self._folder, self._redis = command, base, folder, redis
        self._version = 0

    def write(self, *edges: tuple[str, str]) -> None:
        """A new version of the document, laid down in one piece, as Kubernetes does."""
        self._version += 1
        sites = {name: {"url": f"http://{HOST}:{self.port(name)}"} for edge in edges for name in edge}
        document = {"version": self._version, "sites": sites, "edges": [{"sites": edge} for edge in edges]}
        (self._folder / "next").write_text(json.dumps(document))
        (self._folder / "next").replace(self._folder / "topology.json")

    def start(self, name: str) -> Process:
        places = ["--redis-url", self._redis[name], "--state-dir", str(self._folder / name)]
        doors = ["--port", str(self.port(name)), "--secret-file", "secret", "--topology", "topology.json"]
        return self._command("site", "--job", "job.yaml", "--site", name, *places, *doors)

    def port(self, name: str) -> int:
        return self._base + int(name[1:])

    def progress(self, name: str) -> dict[str, Any]:
        try:
            status = httpx.get(f"http://{HOST}:{self.port(name)}/v1/status", timeout=5.0).json()
        except httpx.HTTPError:
            return {"round": 0, "edges": {}, "metrics": {"accuracy": 0.0}, "phase": "down"}
        return dict(status.get("progress", {"round": 0, "edges": {}, "metrics": {"accuracy": 0.0}, "phase": "up"}))

    def accuracy(self, name: str) -> float:
        return float(self.progress(name)["metrics"].get("accuracy", 0.0))

    def neighbours(self, name: str) -> set[str]:
        return set(self.progress(name)["edges"])


def test_a_site_joins_and_another_leaves_while_the_others_go_on(
    command: Callable[..., Process], base_port: int, tmp_path: Path, temporary: Path
) -> None:
    names = ("N1", "N2", "N3", "N4")
    for name in names:
        (temporary / name).mkdir()
    servers = {name: EmbeddedServer(temporary / name).start() for name in names}
    try:
        fleet = Federation(command, base_port, tmp_path, {name: server.url for name, server in servers.items()})
        fleet.write(("N1", "N2"), ("N2", "N3"), ("N3", "N1"))
        first = [fleet.start(name) for name in names[:3]]
        late = fleet.start("N4")
        wait_until(lambda: min(fleet.progress(name)["round"] for name in names[:3]) >= 80, "the three are under way")
        assert fleet.progress("N4")["phase"] == "joining"
        assert fleet.progress("N4")["round"] == 0
        before = {name: fleet.accuracy(name) for name in names[:3]}

        fleet.write(("N1", "N2"), ("N2", "N3"), ("N3", "N4"), ("N4", "N1"))
        wait_until(lambda: fleet.progress("N4")["round"] >= 1, "the fourth has begun")
        assert fleet.accuracy("N4") >= min(before.values()) - 0.1, "it began where its neighbours are"
        lowest = dict(before)
        while fleet.progress("N4")["round"] < 40:
            lowest = {name: min(lowest[name], fleet.accuracy(name)) for name in lowest}
        assert all(lowest[name] >= before[name] - 0.1 for name in before), "nobody was moved by its coming"
        assert fleet.neighbours("N1") == {"N2", "N4"}
        assert fleet.progress("N1")["edges"]["N4"]["received"] > 0
        assert fleet.progress("N4")["edges"]["N1"]["received"] > 0

        fleet.write(("N1", "N3"), ("N3", "N4"), ("N4", "N1"))
        wait_until(lambda: fleet.neighbours("N1") == {"N3", "N4"}, "the second is gone")
        wait_until(lambda: fleet.progress("N2")["phase"] == "joining", "and knows it")
        round_ = fleet.progress("N1")["round"]
        wait_until(lambda: fleet.progress("N1")["round"] > round_ + 20, "the others go on")
        assert fleet.progress("N1")["edges"]["N3"]["received"] > 0
        assert all(process.poll() is None for process in (*first, late))
        assert {fleet.progress(name)["incarnation"] for name in names} == {1}
    finally:
        for server in servers.values():
            server.stop()
