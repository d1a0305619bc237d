"""`concord demo`: eight real sites learn the digits three ways, are held against pooled training, and answer."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from concord.apps.local import BASE_PORT, LocalFleet
from concord.cli.options import AsJson, Overrides
from concord.cli.render import console, print_json, table
from concord.cli.runfile import RunFile, remove_run_file, run_file_path, write_run_file
from concord.cli.stopping import interruptible
from concord.cli.up import follow
from concord.cli.watch import FleetWatch, Sighting
from concord.console.recording import Recording
from concord.errors import EnvironmentProblem, TransportError
from concord.job import Job, parse_job

DEMO_JOB = """\
name: digits-demo
task: digits
split: {kind: classes-per-site, classes: [2, 3], seed: 0}
sites: 8
topology: ring
algorithm: sm-ecl
training: {rounds: 300, pace: 0.1, local_steps: 16, batch_size: 32, learning_rate: 0.1}
"""
RUNS = {"ecl": "sm-ecl", "gossip": "gossip", "local": "local"}
"""The three ways of learning, by their name in the report; the split, the model and the steps are the same."""


@dataclass(frozen=True, slots=True)
class Result:
    """One way of learning: the sites' accuracies on the common test set at the end, and how long it took."""

    accuracy_mean: float
    accuracy_min: float
    accuracy_max: float
    seconds: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """One site's answer about a held-out sample of a class it has no training sample of."""

    site: str
    true: str
    predicted: str
    class_seen_locally: bool


@dataclass(frozen=True, slots=True)
class Run:
    """What one fleet left behind; `up_at` is when its processes had been started, by the monotonic clock."""

    result: Result
    up_at: float
    first_round_after: float
    history: Sequence[Sighting]
    predictions: Sequence[Prediction]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.json, curves.png and the runs.")] = Path("out/demo"),
    overrides: Overrides = None,
    as_json: AsJson = False,
    base_port: Annotated[int, typer.Option(help="Port of the first site; the others follow.")] = BASE_PORT,
) -> None:
    """Eight sites, two or three digit classes each: ECL, gossip and local-only against pooled training."""
    began = time.monotonic() - time.process_time()  # what it took to load this command counts as well
    runs: dict[str, Run] = {}
    with interruptible() as stop:
        for name, algorithm in RUNS.items():
            job = parse_job(DEMO_JOB, [*(overrides or ()), f"algorithm={algorithm}"], "demo")
            runs[name] = _run(job, base_port, stop, quiet=as_json, ask=name == "ecl")
            if stop.is_set():
                raise typer.Exit(130)
    job = parse_job(DEMO_JOB, overrides or (), "demo")
    pooled = _train_pooled(job)
    report = _report(job, runs, pooled[-1][1])
    report["seconds"] = {
        "setup": round(runs["ecl"].up_at - began, 2),
        "first_round": round(runs["ecl"].up_at + runs["ecl"].first_round_after - began, 2),
        "total": round(time.monotonic() - began, 2),
    }
    _write(out, report, runs, pooled)
    _show(report, out, as_json=as_json)


def _run(job: Job, base_port: int, stop: threading.Event, *, quiet: bool, ask: bool) -> Run:
    run_file = run_file_path(os.environ)
    with LocalFleet(job, base_port) as fleet:
        up_at = time.monotonic()
        write_run_file(run_file, RunFile(job.name, "concord demo", dict(fleet.urls), os.getpid()))
        try:
            with FleetWatch(fleet.urls) as watch:
                follow(job, fleet, watch, stop, quiet=quiet, until_finished=True)
                predictions = _ask_all(job, fleet.urls, watch) if ask and not stop.is_set() else []
        finally:
            remove_run_file(run_file)
        return Run(_result(watch), up_at, watch.first_round_after or 0.0, watch.history, predictions)


def _result(watch: FleetWatch) -> Result:
    known = [status for status in watch.statuses.values() if status]
    values = [status["progress"]["metrics"].get(status["metric"], 0.0) for status in known] or [0.0]
    return Result(
        accuracy_mean=sum(values) / len(values),
        accuracy_min=min(values),
        accuracy_max=max(values),
        seconds=round(watch.elapsed, 2),
        rounds=min((status["progress"]["round"] for status in known), default=0),
    )


def _ask_all(job: Job, urls: Mapping[str, str], watch: FleetWatch) -> list[Prediction]:
    """Ask every site over REST about a held-out sample of a class that it never saw."""
    from concord.apps.trainer import job_task

    task = job_task(job)
    test = task.pool().test
    predictions = []
    for index, (site, url) in enumerate(urls.items()):
        status = watch.statuses[site]
        held = {name for name, count in status["classes"].items() if count} if status else set()
        unseen = [name for name in task.classes if name not in held]
        true = unseen[index % len(unseen)]
        sample = int((test.targets == task.classes.index(true)).nonzero()[index])
        answer = _predict(url, test.inputs[sample].tolist())
        predictions.append(Prediction(site, true, answer, class_seen_locally=true in held))
    return predictions


def _predict(url: str, inputs: Sequence[object]) -> str:
    answer = httpx.post(f"{url}/v1/predict", json={"inputs": inputs}, timeout=10.0)
    if answer.status_code != httpx.codes.OK:
        raise TransportError(f"{url}/v1/predict answered {answer.status_code}: {answer.text}")
    return str(answer.json()["predictions"][0]["class"])


def _train_pooled(job: Job) -> list[tuple[int, float]]:
    """(round, accuracy) of one model trained on all data in one place, with each site's number of steps."""
    from concord.apps.trainer import job_task
    from concord.learning.pooled import train_pooled
    from concord.learning.steps import GradientOptions

    task, training = job_task(job), job.training
    curve = train_pooled(
        task,
        task.pool(),
        rate=training.learning_rate,
        steps=(training.rounds or 1) * training.local_steps,
        options=GradientOptions(training.batch_size, training.momentum, training.weight_decay, training.clip),
        seed=training.seed,
        evaluate_every=training.local_steps * 5,
    )
    return [(p.step // training.local_steps, p.evaluation.metrics[task.headline]) for p in curve]


def _report(job: Job, runs: Mapping[str, Run], pooled: float) -> dict[str, object]:
    return {
        "task": job.task.name,
        "sites": len(job.site_names),
        "topology": job.topology.kind,
        "seconds": {},
        "results": {name: asdict(run.result) for name, run in runs.items()} | {"global": {"accuracy": pooled}},
        "predictions": [asdict(one) for one in runs["ecl"].predictions],
    }


def _write(out: Path, report: object, runs: Mapping[str, Run], pooled: Sequence[tuple[int, float]]) -> None:
    from concord.cli.curves import draw

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        draw(out / "curves.png", {name: run.history for name, run in runs.items()}, pooled)
        for name, run in runs.items():
            (out / f"{name}.run.json").write_text(_recording(name, run, pooled).to_json())
    except OSError as error:
        raise EnvironmentProblem(f"{out} cannot be written ({error.strerror}); choose another with --out") from error


def _recording(name: str, run: Run, pooled: Sequence[tuple[int, float]]) -> Recording:
    """For `concord console --reference`."""
    curves: dict[str, list[tuple[float, int, float]]] = {}
    for seen in run.history:
        curves.setdefault(seen.site, []).append((seen.at, seen.round, seen.value))
    return Recording(_LABELS[name], RUNS[name], sites=curves, pooled=pooled)


def _show(report: Mapping[str, Any], out: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    screen = console()
    results = report["results"]
    rows = [(_LABELS[name], *_percentages(results[name]), f"{results[name]['seconds']:.1f}") for name in RUNS]
    rows.append((_LABELS["global"], f"{100 * results['global']['accuracy']:.1f}", "", "", ""))
    screen.print(table("Accuracy on digits of all ten classes, in %", ("", "mean", "worst", "best", "seconds"), rows))
    rows = [(one["site"], one["true"], one["predicted"]) for one in report["predictions"]]
    columns = ("site", "a digit it never saw", "its answer over REST")
    screen.print(table("", columns, rows))
    seconds = report["seconds"]
    screen.print(
        f"first round of all sites after {seconds['first_round']} s, all after {seconds['total']} s; "
        f"{out / 'report.json'} and {out / 'curves.png'} are written"
    )


_LABELS = {
    "ecl": "edge-consensus learning",
    "gossip": "gossip averaging",
    "local": "each site alone",
    "global": "all data in one place",
}


def _percentages(result: Mapping[str, float]) -> list[str]:
    return [f"{100 * result[key]:.1f}" for key in ("accuracy_mean", "accuracy_min", "accuracy_max")]
