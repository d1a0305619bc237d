"""`concord figure` from end to end on tiny data: picture, record, and the same numbers however many workers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli import Run as RunCommand
from cli import runner

DIGITS = ("--set", "task={name: digits, options: {model: logistic}}")
BRIEF = (*DIGITS, "--set", "simulation.duration=0.2", "--set", "simulation.evaluate_every=0.1")
TINY = ("--set", "task.options.width=4", "--set", "simulation.duration=0.2", "--set", "simulation.evaluate_every=0.1")
NOTE = "CIFAR-10 (made up)"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> RunCommand:
    return runner(capsys)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two dozen random pictures of each class in the form of CIFAR-10."""
    draws = np.random.default_rng(0)
    labels = np.tile(np.arange(10), 24)
    path = tmp_path / "pictures.npz"
    images = draws.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    np.savez(path, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    return path


def read(folder: Path, stem: str) -> Any:
    assert (folder / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / f"{stem}.json").read_text())


@pytest.mark.timeout(300)  # new processes load torch anew
def test_the_number_of_workers_changes_nothing_but_the_time(tmp_path: Path, run: RunCommand) -> None:
    records = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        outcome = run("figure", "1", *BRIEF, "--workers", workers, "--out", str(out))
        assert outcome.code == 0, outcome.err
        records.append(read(out, "figure-1"))
    timings = [record.pop("timing") for record in records]
    assert records[0] == records[1]
    assert [timing["workers"] for timing in timings] == [1, 2]
    assert all(took["seconds"] >= 0 for case in timings[1]["cases"] for took in case["seeds"])


def test_the_record_says_what_was_run_on_what_and_names_no_place(
    tmp_path: Path, pictures: Path, run: RunCommand
) -> None:
    out = tmp_path / "out"
    outcome = run(
        "figure",
        "1",
        *TINY,
        "--data",
        str(pictures),
        "--data-note",
        NOTE,
        "--workers",
        "1",
        "--out",
        str(out),
        "--json",
    )
    assert outcome.code == 0, outcome.err
    record = read(out, "figure-1")
    assert outcome.json == record
    assert str(tmp_path) not in json.dumps(record)
    digest = hashlib.sha256(pictures.read_bytes()).hexdigest()
    size = pictures.stat().st_size
    assert record["data"]["files"] == [{"name": "pictures.npz", "bytes": size, "sha256": digest}]
    assert record["data"]["name"] == NOTE
    assert record["title"].startswith(NOTE)
    assert record["versions"].keys() == {"concord", "torch", "python"}
    assert record["set"] == [change for change in TINY if change != "--set"]
    (panel,) = record["panels"]
    algorithms = [case["algorithm"] for case in panel["cases"]]
    assert algorithms == ["ecl-isvr", "ecl-isvr", "sm-ecl", "sm-ecl", "gossip", "dpsgd"]
    for case in panel["cases"]:
        (seed,) = case["seeds"]
        assert case["job"]["task"]["options"]["path"] == "pictures.npz"
        assert len(case["curve"]["rounds"]) == len(case["curve"]["mean"]) == 3
        assert seed["metrics"] == {site: {"accuracy": end["metric"]} for site, end in seed["sites"].items()}
        assert seed["reference"]["metrics"] == {"accuracy": seed["reference"]["final"]}


def test_the_table_names_every_curve_and_what_is_published(tmp_path: Path, run: RunCommand) -> None:
    shorter = ("--set", "training.rounds=2", "--set", "simulation.evaluate_every=1")
    outcome = run("figure", "paper", *DIGITS, *shorter, "--workers", "1", "--out", str(tmp_path))
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("D-PSGD at every step") == 2
    assert "65.5" in outcome.out
    assert (tmp_path / "figure-paper.png").exists()


def test_data_that_is_no_data_is_told_before_anything_runs(tmp_path: Path, run: RunCommand) -> None:
    wrong = tmp_path / "wrong.npz"
    wrong.write_text("no arrays")
    outcome = run("figure", "1", "--data", str(wrong), "--out", str(tmp_path / "out"))
    assert outcome.code == 2
    assert "wrong.npz cannot be read as .npz of numbers" in outcome.err
    assert "--data PATH says where the data is" in outcome.err


@pytest.mark.timeout(300)  # new processes load torch anew
def test_simulate_writes_the_same_bytes_with_workers(tmp_path: Path, run: RunCommand) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("name: tiny\ntask: digits\nsites: 3\nsplit: iid\ntraining: {rounds: 3, pace: 0}\n")
    for workers in ("1", "2"):
        outcome = run("simulate", str(job), "--seeds", "2", "--workers", workers, "--out", str(tmp_path / workers))
        assert outcome.code == 0, outcome.err
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes(), path.name
