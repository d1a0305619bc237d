"""`make peers`: the digits at ten sites in Flower's simulation and in Concord's, in turn; a table, out/peers.json."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.peers.contenders import (
    JOB,
    ROOT,
    Concord,
    Contender,
    Flower,
    Place,
    fresh_app,
    install_concord,
    install_flower,
)
from benchmarks.peers.marks import Course, Summary, Verdict, course, read_marks, summarise, verdicts
from benchmarks.peers.memory import PeakMemory
from concord.apps.trainer import split_options
from concord.job import Job, load_job
from concord.learning.partition import split
from concord.learning.samples import Samples
from concord.learning.tasks.digits import load_pool

OUT = ROOT / "out" / "peers.json"
FOLDER = ROOT / "out" / "peers"
COLUMNS = ("", "first round, s", "warm round, s", "3 rounds, s", "memory, MB", "accuracy, %")
_LONGEST = 600.0
_PACKAGES = ("concord-edge", "flwr", "ray", "torch", "numpy")
_ASK_VERSIONS = """\
import json, sys
from importlib.metadata import distributions
known = {one.metadata["Name"]: one.version for one in distributions()}
print(json.dumps({name: known[name] for name in sys.argv[1:] if name in known}))
"""


def main() -> None:
    """Install, run in turn, and tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="timed runs of each, in turn")
    repetitions = parser.parse_args().repetitions

    place, job = Place(FOLDER), load_job(JOB, [])
    place.folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = install_concord(place.folder), install_flower(place.folder)
    _write_data(place.folder / "digits.json", job)
    fresh_app(place)
    flower = Flower(place, theirs, job)
    contenders: list[Contender] = [
        flower,
        Concord(place, ours, "fedavg", models=1),
        Concord(place, ours, "ecl-isvr", models=len(job.site_names)),
    ]

    # The first runs fill the disk cache and compile modules, and are where memory is looked at.
    megabytes = {one.name: _memory(one, place, job) for one in contenders}
    courses: dict[str, list[Course]] = {one.name: [] for one in contenders}
    for _ in range(repetitions):
        for one in contenders:
            courses[one.name].append(_run(one, place, job))
    summaries = {name: summarise(runs, megabytes[name]) for name, runs in courses.items()}
    judged = verdicts(summaries[contenders[1].name], summaries[flower.name])
    _write(job, contenders, {"Concord": ours, "Flower": theirs}, flower.starts, courses, summaries, judged)
    _print(summaries, judged, statistics.median(flower.starts))


def _run(contender: Contender, place: Place, job: Job) -> Course:
    """One run, with what must run beside it."""
    marks, log = place.folder / "marks.jsonl", place.folder / "command.log"
    marks.unlink(missing_ok=True)
    with contender.service(), log.open("w") as output:
        load, began = os.getloadavg()[0], time.time()
        subprocess.run(
            contender.command,
            env=dict(contender.environment),
            cwd=place.app,
            stdout=output,
            stderr=output,
            check=True,
            timeout=_LONGEST,
        )
        ended = time.time()
    return course(read_marks(marks.read_text()), contender.models, job.training.rounds or 0, began, ended, load)


def _memory(contender: Contender, place: Place, job: Job) -> float:
    with PeakMemory() as peak:
        _run(contender, place, job)
    return peak.megabytes


def _write_data(path: Path, job: Job) -> None:
    """The digits, and who has which, as whole numbers that both sides read."""
    pool = load_pool()
    shares = split(pool.train.targets, job.site_names, split_options(job))
    data = {"train": _plain(pool.train), "test": _plain(pool.test)}
    path.write_text(json.dumps({**data, "shares": [shares[name].tolist() for name in job.site_names]}))


def _plain(samples: Samples) -> dict[str, object]:
    return {"inputs": (16 * samples.inputs).int().tolist(), "targets": samples.targets.tolist()}


def _write(
    job: Job,
    contenders: Sequence[Contender],
    pythons: Mapping[str, Path],
    starts: Sequence[float],
    courses: Mapping[str, Sequence[Course]],
    summaries: Mapping[str, Summary],
    judged: Sequence[Verdict],
) -> None:
    report = {
        "machine": {"processors": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: _versions(python) for name, python in pythons.items()},
        "job": job.model_dump(mode="json"),
        "settings": {one.name: _settings(one) for one in contenders},
        "memory": "peak over the run of the proportional set sizes of all its processes, services included",
        "superlink_start_seconds": list(starts),
        "runs": {name: [asdict(run) for run in runs] for name, runs in courses.items()},
        "summaries": {name: asdict(summary) for name, summary in summaries.items()},
        "verdicts": [{**asdict(verdict), "met": verdict.met} for verdict in judged],
    }
    OUT.write_text(json.dumps(report, indent=2) + "\n")


def _settings(contender: Contender) -> dict[str, object]:
    """The words of the command without folders, and the variables that are not as in any shell."""
    words = [Path(word).name if os.path.isabs(word) else word for word in contender.command]
    added = {key: value for key, value in contender.environment.items() if key.startswith(("FLWR_", "RAY_"))}
    return {"command": words, "environment": {key: added[key] for key in sorted(added) if key != "FLWR_HOME"}}


def _versions(python: Path) -> dict[str, str]:
    asked = [str(python), "-c", _ASK_VERSIONS, *_PACKAGES]
    found: dict[str, str] = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    return found


def _print(summaries: Mapping[str, Summary], judged: Sequence[Verdict], start: float) -> None:
    table = Table(title="Digits at 10 sites, medians", title_justify="left")
    for column in COLUMNS:
        table.add_column(column)
    for name, one in summaries.items():
        times = (f"{one.first_round:.2f}", f"{one.warm_round:.3f}", f"{one.total:.1f}")
        table.add_row(name, *times, f"{one.megabytes:.0f}", f"{100 * one.accuracy:.1f}")
    screen = Console()
    screen.print(table)
    screen.print(f"Flower's service takes {start:.1f} s more to start, once.")
    for verdict in judged:
        mark = "met" if verdict.met else "[red]missed[/]"
        what = verdict.what.replace("_", " ")
        screen.print(
            f"{what}: Flower needs {verdict.ratio:.1f} times what Concord does; target {verdict.target:.0f}, {mark}"
        )
    screen.print(f"{OUT.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main()
