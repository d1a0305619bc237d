"""What is told of finished runs: summaries, JSON, CSV, curves, and the command around them."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest

from cli import Run as RunCommand
from cli import runner
from concord.cli.simulate import expand
from concord.errors import JobError
from concord.simulate.experiment import Row, Run
from concord.simulate.network import Traffic
from concord.simulate.report import Point, Reference, SeedRun, band, summarise, to_csv, to_json

JOB = """\
name: small
task: {name: digits, options: {model: logistic}}
sites: 3
topology: complete
split: iid
training: {rounds: 4, pace: 0, local_steps: 2, batch_size: 8}
simulation: {evaluate_every: 0.05, network: {loss: 0.2, latency: 0.01, jitter: exponential}}
"""


def a_run(*metrics: float) -> Run:
    rows = [Row(0.0, f"N{index}", 0, 0, 2.0, 0.1, 0) for index in range(len(metrics))]
    rows += [Row(1.0, f"N{index}", 5, 20, 1.0, metric, 40) for index, metric in enumerate(metrics)]
    every = {f"N{index}": {"accuracy": metric, "other": 1 - metric} for index, metric in enumerate(metrics)}
    return Run(tuple(rows), (), Traffic(posted=20, sent=18, bytes=800, lost=3), every)


def a_point(settings: dict[str, object] | None = None) -> Point:
    reference = Reference(((0.0, 0.1), (1.0, 0.95)), {"accuracy": 0.95, "other": 0.3})
    runs = [SeedRun(0, a_run(0.7, 0.9), reference), SeedRun(1, a_run(0.6, 0.8), reference)]
    return Point(settings or {}, "ecl", runs)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> RunCommand:
    return runner(capsys)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_a_summary_is_over_sites_and_seeds() -> None:
    end = summarise(a_point())
    assert (end.mean, end.worst, end.reference) == (pytest.approx(0.75), 0.6, 0.95)
    assert end.spread == pytest.approx(0.1 / 2**0.5)
    assert (end.bytes_per_round, end.rounds, end.seconds, end.gave_up) == (40.0, 5, 1.0, 0)


def test_one_seed_has_no_spread() -> None:
    assert summarise(Point({}, "ecl", [SeedRun(0, a_run(0.5))])).spread is None


def test_a_band_holds_all_sites_and_seeds() -> None:
    shown = band(a_point())
    assert (shown.seconds, shown.least, shown.greatest) == ((0.0, 1.0), (0.1, 0.6), (0.1, 0.9))


def test_the_csv_has_a_row_per_point_seed_time_and_site() -> None:
    rows = list(csv.DictReader(to_csv([a_point({"algorithm": "ecl", "training.rounds": 5})]).splitlines()))
    assert len(rows) == 8
    assert rows[-1]["point"] == "algorithm=ecl training.rounds=5"
    assert (rows[-1]["seed"], rows[-1]["site"], rows[-1]["metric"]) == ("1", "N1", "0.8")


def test_the_json_says_what_was_run_and_how_it_ended() -> None:
    said = json.loads(to_json({"seeds": 2}, [a_point({"algorithm": "ecl"})]))
    (point,) = said["points"]
    assert (said["seeds"], point["settings"], point["summary"]["worst"]) == (2, {"algorithm": "ecl"}, 0.6)
    assert point["seeds"][1]["sites"]["N0"] == {"metric": 0.6, "loss": 1.0, "step": 20}
    assert point["seeds"][1]["metrics"]["N0"] == {"accuracy": 0.6, "other": 0.4}
    assert point["seeds"][0]["reference"]["final"] == 0.95
    assert point["seeds"][0]["reference"]["metrics"] == {"accuracy": 0.95, "other": 0.3}


def test_sweeps_make_a_grid() -> None:
    assert list(expand([])) == [{}]
    assert list(expand(["a=x,y", "b=1,[2, 3]"])) == [
        {"a": "x", "b": 1},
        {"a": "x", "b": [2, 3]},
        {"a": "y", "b": 1},
        {"a": "y", "b": [2, 3]},
    ]


@pytest.mark.parametrize("sweep", ["algorithm", "=1,2", "algorithm=", "a=[1"])
def test_a_sweep_of_another_form_is_told_as_such(sweep: str) -> None:
    with pytest.raises(JobError, match="should be key=value,value"):
        list(expand([sweep]))


def test_the_same_command_writes_the_same_bytes(job: Path, tmp_path: Path, run: RunCommand) -> None:
    for folder in ("one", "two"):
        outcome = run("simulate", str(job), "--seeds", "2", "--out", str(tmp_path / folder))
        assert outcome.code == 0, outcome.err
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["curves.png", "curves.svg", "results.csv", "results.json"]
    for name in files:
        one, two = (hashlib.sha256((tmp_path / folder / name).read_bytes()).hexdigest() for folder in ("one", "two"))
        assert one == two, name


@pytest.mark.parametrize("algorithm", ["ecl-isvr", "fedavg"])
def test_every_metric_of_every_site_is_told_at_the_end(
    algorithm: str, job: Path, tmp_path: Path, run: RunCommand
) -> None:
    outcome = run("simulate", str(job), "--set", f"algorithm={algorithm}", "--out", str(tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    (seed,) = json.loads((tmp_path / "out" / "results.json").read_text())["points"][0]["seeds"]
    assert {site: metrics["accuracy"] for site, metrics in seed["metrics"].items()} == {
        site: end["metric"] for site, end in seed["sites"].items()
    }
    assert seed["reference"]["metrics"]["accuracy"] == seed["reference"]["final"]


def test_a_sweep_prints_a_row_for_each_point(job: Path, tmp_path: Path, run: RunCommand) -> None:
    out = str(tmp_path / "out")
    outcome = run("simulate", str(job), "--sweep", "algorithm=ecl-isvr,local", "--out", out)
    assert outcome.code == 0, outcome.err
    assert "algorithm=ecl-isvr" in outcome.out
    assert "algorithm=local" in outcome.out


def test_json_tells_the_summaries_and_the_time_apart(job: Path, tmp_path: Path, run: RunCommand) -> None:
    outcome = run("simulate", str(job), "--json", "--no-reference", "--out", str(tmp_path / "out"))
    (point,) = outcome.json["points"]
    assert point["reference"] is None
    assert point["bytes_per_round"] == 4 * 650
    assert outcome.json["timing"]["seconds"] > 0


def test_mistakes_end_before_anything_runs(job: Path, tmp_path: Path, run: RunCommand) -> None:
    out = tmp_path / "out"
    outcome = run("simulate", str(job), "--sweep", "simulation.network.loss=0.5,1.0", "--out", str(out))
    assert outcome.code == 2
    assert "simulation.network.loss: should be from 0 to below 1, found 1" in outcome.err
    assert not out.exists()


def test_a_folder_that_cannot_be_is_told_before_anything_runs(job: Path, run: RunCommand) -> None:
    outcome = run("simulate", str(job), "--out", str(job / "inside"))
    assert outcome.code == 3
    assert "choose another with --out" in outcome.err
