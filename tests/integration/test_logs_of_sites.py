"""One update is followed by one id through the logs of the site that sent it and of the one that took it in."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from concord.apps.local import HOST
from concord.errors import RefusalReason
from concord.mailbox.server import EmbeddedServer
from concord.transport.lane import EdgeRoute
from exchange_sites import eventually, exchange_site, publish
from waiting import wait_until

JOB = """\
name: told
task: digits
sites: 2
split: {classes: [5, 5]}
topology: ring
training: {rounds: 500, pace: 0.3, local_steps: 2}
"""
SECRET = "a secret that all sites of the test share"
Line = dict[str, Any]


def absorbed(port: int) -> int:
    try:
        status = httpx.get(f"http://{HOST}:{port}/v1/status", timeout=5.0).json()
    except httpx.HTTPError:
        return 0
    return sum(int(edge["received"]) for edge in status.get("progress", {}).get("edges", {}).values())


def test_one_id_is_followed_from_sender_to_receiver(
    command: Callable[..., subprocess.Popen[str]],
    base_port: int,
    tmp_path: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    monkeypatch.setenv("CONCORD_SECRET", SECRET)
    monkeypatch.setenv("CONCORD_LOG_FORMAT", "json")
    ports = {"N1": base_port, "N2": base_port + 1}
    processes = {}
    with ExitStack() as servers:
        for site, other in (("N1", "N2"), ("N2", "N1")):
            (temporary / site).mkdir()
            redis = servers.enter_context(EmbeddedServer(temporary / site))
            places = ["--redis-url", redis.url, "--port", str(ports[site]), "--state-dir", str(tmp_path / site)]
            peers = f"{other}=http://{HOST}:{ports[other]}"
            processes[site] = command(
                "site", "--job", "job.yaml", "--site", site, "--peers", peers, "--log-level", "debug", *places
            )
        wait_until(lambda: all(absorbed(port) >= 4 for port in ports.values()), "both absorbed updates")
        told = {site: ended(process) for site, process in processes.items()}
    for site, lines in told.items():
        assert {(line["site"], line["process"]) for line in lines} == {(site, "site")}
        assert {"uvicorn.error", "concord.site.journey"} <= {line["logger"] for line in lines}
        assert SECRET not in json.dumps(lines)
    for sender, receiver in (("N1", "N2"), ("N2", "N1")):
        whole = set.intersection(
            *(ids(told[sender], f"update {step}") for step in ("published", "delivered")),
            *(ids(told[receiver], f"update {step}") for step in ("stored", "absorbed")),
        )
        ours = {update for update in whole if re.fullmatch(rf"told/{sender}/{receiver}/1\.1\.\d+", update)}
        assert len(ours) >= 3, "most updates go all the way"


def ended(process: subprocess.Popen[str]) -> list[Line]:
    """What it said until it was told to stop, each line an object."""
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    return [json.loads(line) for line in errors.splitlines()]


def ids(lines: list[Line], message: str) -> set[str]:
    return {line["update"] for line in lines if line["message"] == message}


@pytest.mark.anyio
async def test_a_refusal_is_told_at_both_ends_with_the_same_id(caplog: pytest.LogCaptureFixture) -> None:
    async with exchange_site("N2", "N1") as theirs:
        route = EdgeRoute("N2", theirs.url, push=True, pull=False)
        async with exchange_site("N1", "N2", routes=(route,)) as ours:
            await publish(ours, "N2", 7, fingerprint="beef")
            await eventually(lambda: len(told(caplog)) >= 2)
    for record in told(caplog)[:2]:
        assert record.levelno == logging.WARNING
        assert vars(record)["update"] == "test/N1/N2/1.1.7"
        assert vars(record)["reason"] == RefusalReason.FINGERPRINT.value
        assert "beef" in record.getMessage()
    assert {record.getMessage().partition(":")[0] for record in told(caplog)} == {
        "update of N1 refused",
        "update refused by N2",
    }


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "concord.site.journey"]


@pytest.mark.parametrize("name", ["exchange", "console"])
def test_what_ends_a_process_is_a_line_of_its_log_too(
    name: str, command: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    wrong = ["--job", "job.yaml", "--site", "N9"] if name == "exchange" else ["--sites", "nowhere"]
    process = command(name, "--log-format", "json", *wrong)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    fields = json.loads(line)
    assert (fields["level"], fields["process"]) == ("CRITICAL", name)
    assert fields["code"].startswith("CE-")
