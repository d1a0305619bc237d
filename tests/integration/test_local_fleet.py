"""Real processes, real HTTP, real Redis: what dies comes back, the result is the same, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from concord.apps.local import HOST, LocalFleet
from concord.cli.watch import FleetWatch
from concord.errors import EnvironmentProblem
from concord.job import Job, parse_job
from waiting import PATIENCE, wait_until

JOB = """\
name: fleet-test
task: digits
sites: 4
topology: ring
training: {rounds: 160, pace: 0.05, local_steps: 16, learning_rate: 0.1}
checkpoint: {every: 0.5}
"""


def job(*overrides: str) -> Job:
    return parse_job(JOB, overrides)


def left_in(folder: Path) -> list[str]:
    """What a fleet left behind; the socket folder of the process that forks goes only with the test's own process."""
    return [path.name for path in folder.iterdir() if not path.name.startswith("pymp-")]


def supervise_until(fleet: LocalFleet, condition: Callable[[], bool], progress: Callable[[], int] = lambda: 0) -> None:
    def holds() -> bool:
        fleet.supervise()
        return condition()

    try:
        wait_until(holds, "supervised", progress=progress)
    except AssertionError:
        raise AssertionError({site: fleet.log(site) for site in fleet.urls}) from None


def rounds_of(watch: FleetWatch, site: str) -> int:
    status = watch.statuses[site]
    return int(status["progress"]["round"]) if status else 0


def supervise_to_the_end(fleet: LocalFleet, watch: FleetWatch) -> None:
    supervise_until(fleet, lambda: watch.finished, lambda: sum(rounds_of(watch, site) for site in fleet.urls))


@pytest.mark.timeout(300)  # a slow machine trains slowly
def test_killing_a_site_and_a_redis_in_the_middle_changes_nothing(base_port: int, temporary: Path) -> None:
    with LocalFleet(job("training.rounds=300"), base_port) as fleet, FleetWatch(fleet.urls, interval=0.05) as watch:
        supervise_until(fleet, lambda: rounds_of(watch, "N1") >= 30)
        assert os.getpriority(os.PRIO_PROCESS, fleet.pids("N1")["site"] or 0) == min(19, os.nice(0) + 10)
        os.kill(fleet.pids("N1")["site"] or 0, signal.SIGKILL)
        supervise_until(fleet, lambda: rounds_of(watch, "N2") >= 60)
        os.kill(fleet.pids("N2")["redis"] or 0, signal.SIGKILL)
        supervise_to_the_end(fleet, watch)
        accuracies = [status["progress"]["metrics"]["accuracy"] for status in watch.statuses.values() if status]
        lives = {site: status["progress"]["incarnation"] for site, status in watch.statuses.items() if status}
        assert len(accuracies) == 4
        assert min(accuracies) >= 0.95
        assert {(one.site, one.process) for one in fleet.incidents} == {("N1", "site"), ("N2", "redis")}
        assert lives["N1"] == 2
    assert left_in(temporary) == []


@pytest.mark.parametrize(
    "how",
    [
        ["sites={N1: {}, N2: {reach: outbound}}"],
        ["sites={N1: {reach: inbound}, N2: {}}"],
        ["sites=2", "exchange.mode=pull"],
    ],
    ids=["one cannot be called", "one cannot call", "both only pull"],
)
def test_two_sites_converge_whoever_does_the_calling(how: list[str], base_port: int, temporary: Path) -> None:
    two = job(*how, "split.classes=[5, 5]")
    with LocalFleet(two, base_port) as fleet, FleetWatch(fleet.urls, interval=0.05) as watch:
        supervise_to_the_end(fleet, watch)
        progress = [status["progress"] for status in watch.statuses.values() if status]
    assert min(one["metrics"]["accuracy"] for one in progress) >= 0.95
    assert min(edge["received"] for one in progress for edge in one["edges"].values()) >= 80


def test_a_site_answers_about_a_class_it_never_saw(base_port: int, temporary: Path) -> None:
    from concord.apps.trainer import job_task

    test = job_task(job()).pool().test
    with LocalFleet(job(), base_port) as fleet, FleetWatch(fleet.urls, interval=0.05) as watch:
        supervise_to_the_end(fleet, watch)
        for site, url in fleet.urls.items():
            status = watch.statuses[site]
            assert status is not None
            unseen = [int(name) for name, count in status["classes"].items() if not count]
            assert len(unseen) >= 7
            chosen = [int((test.targets == label).nonzero()[0]) for label in unseen]
            body = {"inputs": [test.inputs[index].tolist() for index in chosen]}
            answer = httpx.post(f"{url}/v1/predict", json=body).json()
            predicted = [int(one["class"]) for one in answer["predictions"]]
            assert sum(a == b for a, b in zip(predicted, unseen, strict=True)) >= len(unseen) - 1
            assert answer["model"]["version"] >= 1


def test_a_port_in_use_is_said_before_anything_starts(base_port: int, temporary: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, base_port + 2))
        taken.listen()
        with (
            pytest.raises(EnvironmentProblem, match=rf"port {base_port + 2} .* --base-port"),
            LocalFleet(job(), base_port),
        ):
            pass
    assert left_in(temporary) == []


def test_a_job_that_no_site_can_run_ends_the_fleet_with_its_reason(base_port: int, temporary: Path) -> None:
    impossible = job("task={model: 'torch.nn:Identity', data: 'no_such_module:load'}")
    with (
        pytest.raises(Exception, match=r"site N\d: .*no_such_module"),
        LocalFleet(impossible, base_port) as fleet,
    ):
        supervise_until(fleet, lambda: False)
    assert left_in(temporary) == []


def wait_for_status(url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"{url} did not come up")


def processes_in(*folders: Path) -> set[int]:
    """Every process that works in one of the folders: each of a fleet does, whoever its parent is."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(Path(process.cwd()).is_relative_to(folder) for folder in folders):
                found.add(process.pid)
    return found


@pytest.mark.parametrize("how", ["ctrl-c", "kill -9"])
def test_up_leaves_no_process_behind(
    how: str, command: Callable[..., subprocess.Popen[str]], base_port: int, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    process = command("up", "job.yaml", "--base-port", str(base_port), "--set", "training.rounds=100000")
    wait_for_status(f"http://{HOST}:{base_port + 3}")
    pids = processes_in(tmp_path, temporary)
    assert len(pids) >= 9  # the command, and for each site its process and its Redis
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    else:
        process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 15
    while alive := processes_in(tmp_path, temporary):
        assert time.monotonic() < deadline, [psutil.Process(pid).cmdline() for pid in alive]
        time.sleep(0.05)
    if how == "ctrl-c":
        assert list(temporary.iterdir()) == []
        assert not (tmp_path / ".concord" / "run.json").exists()


def test_demo_writes_a_report_of_the_promised_form(
    command: Callable[..., subprocess.Popen[str]], base_port: int, tmp_path: Path
) -> None:
    demo = command("demo", "--json", "--base-port", str(base_port), "--set", "training.rounds=60", "--set", "sites=4")
    printed, errors = demo.communicate(timeout=100)
    assert demo.returncode == 0, errors
    report = json.loads(printed)
    assert report == json.loads((tmp_path / "out/demo/report.json").read_text())
    assert set(report) == {"task", "sites", "topology", "seconds", "results", "predictions"}
    assert set(report["seconds"]) == {"setup", "first_round", "total"}
    assert set(report["results"]) == {"ecl", "gossip", "local", "global"}
    for name in ("ecl", "gossip", "local"):
        result = report["results"][name]
        assert set(result) == {"accuracy_mean", "accuracy_min", "accuracy_max", "seconds", "rounds"}
        assert result["rounds"] == 60
    assert report["results"]["ecl"]["accuracy_mean"] > report["results"]["local"]["accuracy_mean"] + 0.4
    assert [one["class_seen_locally"] for one in report["predictions"]] == [False] * 4
    assert (tmp_path / "out/demo/curves.png").stat().st_size > 10_000
