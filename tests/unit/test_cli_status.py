"""`concord status` and the run file that tells it where the fleet is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import Run, runner
from concord.cli.fleet_table import fleet_table
from concord.cli.render import bar
from concord.cli.runfile import RunFile, read_run_file, remove_run_file, run_file_path, write_run_file
from concord.errors import EnvironmentProblem
from fake_site import fake_site, status_of

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return runner(capsys)


def test_a_row_for_each_site_and_one_that_is_away(concord: Run) -> None:
    with fake_site({"/v1/status": (200, status_of("N1", 0.75))}) as site:
        write_run_file(
            Path(".concord/run.json"),
            run := RunFile("digits", "j", {"N1": site.url, "N2": NOBODY}, os.getpid()),
        )
        outcome = concord("status")
        report = concord("status", "--json").json
    assert outcome.code == 0
    for shown in ("digits", "3 7", "120/300", "75.0 %", "0.2 s", "0.125", "training", "no answer"):
        assert shown in outcome.out
    assert report["name"] == run.name
    assert report["sites"]["N1"]["progress"]["round"] == 120
    assert report["sites"]["N2"] is None
    assert NOBODY in report["errors"]["N2"]


def test_urls_stand_in_for_the_run_file(concord: Run) -> None:
    with fake_site({"/v1/status": (200, status_of("N7"))}) as site:
        assert list(concord("status", "--json", "--url", site.url + "/").json["sites"]) == [site.url + "/"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {"site": "N1", "exchange": {}}), "its trainer has not reported yet"),
        ((503, {"reason": "mailbox"}), "answered 503"),
        ((200, b"<html>"), "not with JSON"),
    ],
)
def test_a_site_without_a_status_is_told_why(concord: Run, answer: tuple[int, object], message: str) -> None:
    with fake_site({"/v1/status": answer}) as site:
        outcome = concord("status", "--url", site.url)
    assert outcome.code == 1
    assert message in outcome.err


def test_without_a_fleet_the_remedy_is_named(concord: Run) -> None:
    outcome = concord("status")
    assert outcome.code == 3
    assert "start one with `concord up`" in outcome.err


def test_a_run_file_comes_back_as_it_was(tmp_path: Path) -> None:
    path, run = tmp_path / "deep" / "run.json", RunFile("digits", "job.yaml", {"N1": NOBODY}, os.getpid())
    write_run_file(path, run)
    assert read_run_file(path) == run
    assert [one.name for one in path.parent.iterdir()] == ["run.json"]
    remove_run_file(path)
    remove_run_file(path)
    assert read_run_file(path) is None


def test_a_run_file_of_a_process_that_is_gone_does_not_count(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_run_file(tmp_path / "run.json", RunFile("digits", "j", {}, gone.pid))
    assert read_run_file(tmp_path / "run.json") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"name": 1})])
def test_what_is_not_a_run_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(EnvironmentProblem, match="is not a run file"):
        read_run_file(tmp_path / "run.json")


def test_a_run_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        write_run_file(tmp_path / "file" / "run.json", RunFile("a", "b", {}, 1))


def test_the_environment_may_say_where_the_run_file_is() -> None:
    assert run_file_path({"CONCORD_RUN_FILE": "/run/x.json"}) == Path("/run/x.json")
    assert run_file_path({}) == Path(".concord/run.json")


def test_a_bar_is_as_long_as_the_share() -> None:
    assert bar(0.5, width=10) == "█████·····  50.0 %"
    assert bar(1.0, width=4) == "████ 100.0 %"
    assert bar(None, width=4) == "····"


def test_a_site_that_has_not_measured_yet_has_an_empty_bar() -> None:
    status = status_of("N1", classes={str(digit): 1 for digit in range(10)}, rounds=None)
    status["progress"] = {"phase": "finished", "round": 3, "metrics": {}, "edges": {}}
    (row,) = zip(*(column.cells for column in fleet_table("x", {"N1": status}).columns), strict=True)
    shown = [str(cell) for cell in row]
    assert shown == ["N1", "10 classes", "3", bar(None, 10), "-", "-", "1200", "finished"]
