"""`concord validate`, and what all commands have in common: help, version, errors and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli import Run, runner
from concord import __version__
from concord.errors import (
    ConcordError,
    EnvironmentProblem,
    JobError,
    MailboxError,
    TopologyError,
    TransportError,
)

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture
def bad_job(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text("name: a\ntask: digits\nsites: 4\ntopology: rnig\ntraining: {rouds: 3}\n")
    return path


def test_a_valid_job_is_summed_up(concord: Run) -> None:
    outcome = concord("validate", str(EXAMPLES / "digits.yaml"), "--no-data")
    assert outcome.code == 0
    assert "sm-ecl" in outcome.out
    assert "N1-N2" in outcome.out


def test_the_split_shows_the_classes_of_each_site(concord: Run) -> None:
    report = concord("validate", str(EXAMPLES / "digits.yaml"), "--json").json
    assert report["valid"] is True
    assert list(report["split"]) == [f"N{number}" for number in range(1, 9)]
    assert all(len(counts) in (2, 3) for counts in report["split"].values())
    assert {digit for counts in report["split"].values() for digit in counts} == set("0123456789")


def test_a_wide_split_is_not_cut(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    shown = concord("validate", str(EXAMPLES / "digits.yaml"), "--set", "sites=2", "--set", "split=iid").out
    assert "…" not in shown
    assert all(f"{digit} " in shown.partition("classes")[2] for digit in range(10))
    assert len(max(shown.splitlines(), key=len)) <= 50


def test_a_task_of_ones_own_is_found_in_its_folder(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES / "bring-your-own")
    report = concord("validate", "job.yaml", "--json").json
    assert report["split"]["beta"] == {"healthy": 120, "worn": 120}


def test_missing_data_are_told_and_do_not_make_the_job_wrong(concord: Run, tmp_path: Path) -> None:
    option = f"task.options.path={tmp_path / 'nowhere'}"
    outcome = concord("validate", str(EXAMPLES / "cifar10.yaml"), "--set", option, "--json")
    assert outcome.code == 0
    assert outcome.json["split"] is None
    assert "nowhere" in outcome.json["data"]


def test_an_override_counts(concord: Run) -> None:
    arguments = ("--set", "training.rounds=7", "--set", "topology=star", "--no-data", "--json")
    report = concord("validate", str(EXAMPLES / "digits.yaml"), *arguments).json
    assert (report["rounds"], report["topology"], len(report["edges"])) == (7, "star", 7)


def test_problems_are_told_line_by_line_and_exit_2(concord: Run, bad_job: Path) -> None:
    outcome = concord("validate", str(bad_job))
    assert outcome.code == 2
    assert outcome.out == ""
    assert "line 4, column 11: topology.kind: unknown topology 'rnig'; did you mean 'ring'?" in outcome.err
    assert "line 5, column 12: training.rouds: unknown key; did you mean 'rounds'?" in outcome.err
    assert "Traceback" not in outcome.err


def test_problems_as_json_have_their_places(concord: Run, bad_job: Path) -> None:
    outcome = concord("validate", str(bad_job), "--json")
    report = json.loads(outcome.err)
    assert outcome.code == 2
    assert report["error"] == "JobFileError"
    assert [(one["line"], one["key"]) for one in report["problems"]] == [
        (4, "topology.kind"),
        (5, "training.rouds"),
    ]


def test_a_file_that_is_not_there_is_one_line(concord: Run) -> None:
    outcome = concord("validate", "nowhere.yaml")
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)


def test_help_lists_the_commands_and_version_is_the_packages(concord: Run) -> None:
    shown = concord("--help").out
    for command in ("validate", "doctor", "status", "predict", "trainer", "exchange", "inference", "site"):
        assert command in shown
    assert concord("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobError("x"), 2),
        (TopologyError("x"), 2),
        (EnvironmentProblem("x"), 3),
        (MailboxError("x"), 1),
        (TransportError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: ConcordError, code: int) -> None:
    from concord.cli.render import exit_code

    assert exit_code(error) == code
