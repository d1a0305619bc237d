"""Curves in TensorBoard and MLflow, read back by their own libraries: of a simulation, and of sites that run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cli import Run, runner
from concord.apps.local import LocalFleet
from concord.cli.tracking import Following, tracking_to, values_of
from concord.errors import EnvironmentProblem
from concord.job import parse_job

JOB = """\
name: tracked
task: {name: digits, options: {hidden: 8}}
sites: 2
split: {classes: [5, 5]}
topology: ring
training: {rounds: 12, pace: 0.05, local_steps: 4, learning_rate: 0.1}
evaluation: {every: 0.05}
simulation: {evaluate_every: 0.1}
"""
STATUS = {
    "federation": "tracked",
    "metric": "accuracy",
    "reported_at": 1000.0,
    "steps_per_second": 40.0,
    "progress": {
        "round": 7,
        "loss": None,
        "metrics": {"accuracy": 0.75},
        "edges": {
            "N2": {"consensus_distance": 0.1, "staleness_seconds": 2.0},
            "N3": {"consensus_distance": 0.3, "staleness_seconds": None},
        },
    },
}

run = pytest.fixture(runner)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking URI that needs no server, which MLflow wants to be asked for."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlflow").as_uri()


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(one.step, one.value) for one in events.Scalars(name)]


def runs_of(store: str, federation: str) -> dict[str, list[tuple[int, float]]]:
    """By site, the points of its accuracy."""
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name(federation)
    assert experiment is not None
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "accuracy")
        found[run.data.tags["concord.site"]] = sorted((one.step, one.value) for one in history)
    return found


def test_the_curves_of_a_simulation_are_kept(run: Run, tmp_path: Path, store: str) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    board = tmp_path / "board"
    words = ["--tensorboard", str(board), "--mlflow", store, "--out", str(tmp_path / "out"), "--json"]
    outcome = run("simulate", str(tmp_path / "job.yaml"), "--no-reference", *words)
    assert outcome.code == 0, outcome
    points = scalars(board / "tracked" / "sm-ecl seed=0" / "N1", "accuracy")
    assert points[0][0] == 0
    assert points[-1][0] == 12
    kept = runs_of(store, "tracked")
    assert kept.keys() == {"N1", "N2"}
    assert [step for step, _ in kept["N1"]] == [step for step, _ in points]
    assert [value for _, value in kept["N1"]] == pytest.approx([value for _, value in points])


def test_sites_that_run_are_followed_to_their_end(
    command: Callable[..., subprocess.Popen[str]], base_port: int, tmp_path: Path, temporary: Path, store: str
) -> None:
    board = tmp_path / "board"
    with LocalFleet(parse_job(JOB, ["training.rounds=60"]), base_port) as fleet:
        places = ",".join(f"{site}={url}" for site, url in fleet.urls.items())
        words = ["--sites", places, "--name", "live", "--tensorboard", str(board), "--mlflow", store]
        process = command("track", *words, "--until-finished")
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert out.startswith("following 2 sites as run ")
    (kept,) = (board / "live").iterdir()
    for site in ("N1", "N2"):
        assert scalars(kept / site, "accuracy")[-1][0] == 60
        assert scalars(kept / site, "consensus_distance")
    assert runs_of(store, "live").keys() == {"N1", "N2"}


def test_up_keeps_them_too(command: Callable[..., subprocess.Popen[str]], base_port: int, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    words = ["--base-port", str(base_port), "--until-finished", "--json", "--tensorboard", "board"]
    process = command("up", "job.yaml", *words)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    (kept,) = (tmp_path / "board" / "tracked").iterdir()
    assert scalars(kept / "N2", "accuracy")[-1][0] == 12


def test_what_is_not_known_is_left_out() -> None:
    assert values_of(STATUS) == {
        "steps_per_second": 40.0,
        "consensus_distance": 0.3,
        "staleness_seconds": 2.0,
        "accuracy": 0.75,
    }


def test_a_round_is_logged_once_and_a_tracker_that_fails_stops_nobody(tmp_path: Path) -> None:
    problems: list[str] = []
    (tmp_path / "board").mkdir()
    with tracking_to(tmp_path / "board", None, "tracked") as trackers:
        following = Following(trackers, on_problem=problems.append)
        for _ in range(3):
            following.take({"N1": STATUS, "N2": None})
        folder = tmp_path / "board" / "tracked" / following.run
        (folder / "N2").write_text("in the way of a folder")
        following.take({"N2": STATUS})
        following.take({"N2": {**STATUS, "progress": {**STATUS["progress"], "round": 8}}})
    assert scalars(folder / "N1", "accuracy") == [(7, 0.75)]
    assert len(problems) == 1
    assert problems[0].startswith(f"no more curves are kept: --tensorboard {folder.parent} cannot be written: ")


def test_a_store_that_cannot_be_used_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"--mlflow nonsense:// cannot be used: "):
        tracking_to(None, "nonsense://", "tracked").__enter__()


def test_up_tells_of_a_store_that_cannot_be_used_before_a_site_starts(
    command: Callable[..., subprocess.Popen[str]], base_port: int, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    process = command("up", "job.yaml", "--base-port", str(base_port), "--mlflow", "nonsense://")
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, "")
    assert "--mlflow nonsense:// cannot be used: " in errors


def test_what_cannot_be_closed_is_told_and_costs_nothing_else(capsys: pytest.CaptureFixture[str], store: str) -> None:
    with tracking_to(None, store, "tracked") as trackers:
        Following(trackers).take({"N1": STATUS})
        shutil.rmtree(store.removeprefix("file://"))
    assert f"the curves may lack their end: --mlflow {store} cannot be used: " in capsys.readouterr().err


def test_track_wants_to_know_where_and_under_what(run: Run) -> None:
    assert "say where to keep the curves: --tensorboard FOLDER" in run("track").err
    outcome = run("track", "--tensorboard", "x", "--sites", "N1=http://127.0.0.1:9")
    assert (outcome.code, "say with --name what" in outcome.err) == (2, True)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    for option, value, module in (("tensorboard", "x", "tensorboard"), ("mlflow", "file:x", "mlflow")):
        code = f"import sys; sys.modules['{module}'] = None; from concord.cli.main import main; main(sys.argv[1:])"
        words = ["track", "--sites", "N1=http://127.0.0.1:9", "--name", "n", f"--{option}", value]
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 3
        assert f"pip install 'concord-edge[{option}]'" in done.stderr
