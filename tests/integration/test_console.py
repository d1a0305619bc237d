"""A console before real sites: its stream, what it passes on, what it refuses, and that `up --open` brings one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from concord.apps.local import LocalFleet
from concord.job import parse_job
from exposition import check, names_in, names_of, scrape, series_of
from waiting import wait_until

JOB = """\
name: console-test
task: digits
sites: 4
topology: ring
training: {rounds: 2000, pace: 0.03, local_steps: 8, learning_rate: 0.1}
"""
PATIENCE = 60.0
Command = Callable[..., subprocess.Popen[str]]


@dataclass(slots=True)
class Heard:
    """One server-sent event."""

    id: str
    event: str
    data: Any


@pytest.fixture
def fleet(base_port: int, temporary: Path) -> Iterator[LocalFleet]:
    with LocalFleet(parse_job(JOB), base_port) as running:
        yield running


def start(command: Command, sites: Mapping[str, str]) -> str:
    """A console in a process of its own; its URL."""
    process = command("console", "--port", "0", "--sites", ",".join(f"{name}={url}" for name, url in sites.items()))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(f"{len(sites)} sites at http://127.0.0.1:"), process.communicate(timeout=5)
    return line.split()[3].rstrip("/")


@pytest.fixture
def lonely(command: Command) -> str:
    """The URL of a console whose only site does not answer."""
    return start(command, {"N1": "http://127.0.0.1:9"})


@contextmanager
def events(url: str, last: str | None = None) -> Iterator[Iterator[Heard]]:
    headers = {} if last is None else {"last-event-id": last}
    with httpx.stream("GET", f"{url}/api/events", headers=headers, timeout=PATIENCE) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _parse(response.iter_lines())


def _parse(lines: Iterator[str]) -> Iterator[Heard]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Heard(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}


def states(url: str) -> set[str]:
    return {site["state"] for site in httpx.get(f"{url}/api/fleet").json()["sites"].values()}


def served(url: str, site: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{url}/api/sites/{site}/models")
    return list(answer.json()["models"]) if answer.is_success else []


def test_a_console_follows_real_sites_and_passes_questions_on(fleet: LocalFleet, command: Command) -> None:
    url = start(command, fleet.urls)
    with events(url) as heard:
        first = next(heard)
        assert first.event == "snapshot"
        assert list(first.data["sites"]) == ["N1", "N2", "N3", "N4"]
        edges = 0
        for message in heard:
            assert message.event == "delta"
            edges += sum("edges" in site for site in message.data["sites"].values())
            if edges >= 6:
                break
        last = message.id
    with events(url, last) as heard:
        assert next(heard).event == "delta"  # what was missed, and not everything again
    wait_until(lambda: bool(served(url, "N2")), "N2 has a model")
    assert served(url, "N2")[0]["input_shape"] == [64]
    answer = httpx.post(f"{url}/api/sites/N2/predict", json={"inputs": [[0.5] * 64]})
    assert answer.json()["predictions"][0]["label"] in set("0123456789")
    assert httpx.post(f"{url}/api/sites/N2/predict", json={"inputs": [[0.5]]}).status_code == 400
    os.kill(fleet.pids("N3")["site"] or 0, signal.SIGKILL)  # nobody supervises the fleet here: it stays dead
    with events(url) as heard:
        told = (event for message in heard for event in message.data.get("events", ()))
        assert next(event["site"] for event in told if event["kind"] == "silent") == "N3"
    assert httpx.get(f"{url}/api/sites/N3/models").status_code == 502
    recorded = httpx.get(f"{url}/api/recording").json()
    assert recorded["format"] == "concord-run/1"
    assert len(recorded["sites"]["N1"]) >= 2


def test_a_console_tells_of_sites_that_do_not_answer(lonely: str) -> None:
    silent = ("concord_console_sites_unreachable", ())
    wait_until(lambda: series_of(scrape(lonely))[silent] == 1, "the site is missed")
    text = scrape(lonely)
    assert names_in(text) == names_of("console")
    check(text)
    assert series_of(text)["concord_console_sites", ()] == 1


def test_what_a_console_refuses(lonely: str) -> None:
    url, predict = lonely, f"{lonely}/api/sites/N1/predict"
    assert httpx.post(f"{url}/api/sites/N9/predict", json={}).status_code == 404
    assert httpx.post(predict, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert httpx.post(predict, json={"inputs": "x" * (1 << 20)}).status_code == 413
    assert httpx.get(f"{url}/page/..%2fapp.js").status_code == 404
    assert httpx.get(f"{url}/page/nothing.js").status_code == 404
    assert httpx.get(f"{url}/", headers={"host": "evil.example"}).status_code == 400


def test_the_page_may_load_only_what_comes_from_its_console(lonely: str) -> None:
    page = httpx.get(f"{lonely}/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in page.headers["content-security-policy"]
    again = httpx.get(f"{lonely}/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_up_brings_a_console_and_takes_it_away(
    command: Command, base_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER", "true")  # the program of that name, which shows nothing
    (tmp_path / "job.yaml").write_text(JOB)
    process = command("up", "job.yaml", "--open", "--base-port", str(base_port))
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1].rstrip("/")
    wait_until(lambda: answers(url) and "training" in states(url), "the console shows sites that train")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert not answers(url)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.HTTPError:
        return False
