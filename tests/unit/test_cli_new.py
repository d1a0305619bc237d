"""`concord new`: a project that runs, or one clear message and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import Run, runner
from concord.cli.new import FILES
from concord.job import load_job


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


def test_a_project_is_made(concord: Run) -> None:
    outcome = concord("new", "my-project")
    assert outcome.code == 0
    assert "cd my-project" in outcome.out
    assert {path.name for path in Path("my-project").iterdir()} == set(FILES)
    assert load_job(Path("my-project/job.yaml"), ()).name == "my-project"
    assert not [path for path in Path("my-project").iterdir() if "$" in path.read_text()]


def test_its_own_tests_pass(concord: Run) -> None:
    concord("new", "my-project")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider"],
        cwd="my-project",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_a_project_may_be_made_elsewhere(concord: Run) -> None:
    Path("work").mkdir()
    report = concord("new", "work/third-try", "--json").json
    assert report == {"folder": "work/third-try", "files": list(FILES)}
    assert load_job(Path("work/third-try/job.yaml"), ()).name == "third-try"


@pytest.mark.parametrize("name", ["My-Project", "my_project", "-x", "x-", "two words", "a" * 64, "..", "/"])
def test_a_name_that_cannot_be_a_federations_is_refused(concord: Run, name: str) -> None:
    outcome = concord("new", "--", name)
    assert outcome.code == 2
    assert "cannot be the name of a project: lower-case letters, digits and - inside" in outcome.err
    assert os.listdir() == []


def test_what_is_there_is_left_alone(concord: Run) -> None:
    Path("taken").mkdir()
    Path("linked").symlink_to("nowhere")
    for name in ("taken", "linked"):
        outcome = concord("new", name)
        assert (outcome.code, f"{name} is there already" in outcome.err) == (2, True)
    assert sorted(os.listdir()) == ["linked", "taken"]
    assert os.listdir("taken") == []


def test_a_place_that_is_not_there_is_told(concord: Run) -> None:
    outcome = concord("new", "nowhere/my-project")
    assert (outcome.code, "nowhere is no folder; make it first" in outcome.err) == (2, True)


def test_a_place_that_cannot_be_written_is_the_machines_fault(concord: Run) -> None:
    outcome = concord("new", "/proc/my-project")
    assert (outcome.code, "/proc/my-project cannot be made" in outcome.err) == (3, True)


def test_nothing_half_written_is_left(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last file is not in the package, as if it could not be read in the middle of the work.
    monkeypatch.setitem(FILES, ".gitignore", "not-there")
    outcome = concord("new", "my-project")
    assert (outcome.code, "nothing was left there" in outcome.err) == (3, True)
    assert os.listdir() == []
