"""`make bench`: the numbers that Concord promises, as medians with the machine's load, and out/bench.json.

`make bench ARGS=simulations` measures one part alone; the others are demo, pair, exchange_speed and steps.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import exchange, simulation, step_rate
from benchmarks.split_site import free_port
from concord.apps.local import LocalFleet
from concord.cli.watch import FleetWatch
from concord.job import parse_job

OUT = Path("out/bench.json")
PAIR = """\
name: pair
task: digits
sites: 2
topology: ring
split: {kind: iid}
training: {rounds: null, pace: 0, local_steps: 16, learning_rate: 0.05}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One promised number: the target in words, the value in `unit`, and whether the target is met."""

    what: str
    target: str
    value: float
    unit: str
    met: bool
    load: float


def main(names: list[str]) -> None:
    """Measure the parts of these names, or everything, one thing after the other."""
    parts = {part.__name__: part for part in (demo, pair, exchange_speed, steps, simulations)}
    if not set(names) <= set(parts):
        raise SystemExit(f"python -m benchmarks [{'] ['.join(parts)}]; found {' '.join(names)}")
    rows: list[Row] = []
    for part in [parts[name] for name in names or parts]:
        load = os.getloadavg()[0]
        for what, target, value, unit, met in part():
            rows.append(Row(what, target, value, unit, met, load))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processors": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    OUT.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    _print(rows)


Measured = list[tuple[str, str, float, str, bool]]


def demo() -> Measured:
    """Accuracy and times of the whole demo, the times as a user sees them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "concord", "demo", "--json", "--out", folder]
        began = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        total = time.perf_counter() - began
    report = json.loads(done.stdout)
    results = report["results"]
    pooled = 100 * results["global"]["accuracy"]
    mean, worst = (100 * results["ecl"][key] for key in ("accuracy_mean", "accuracy_min"))
    first = report["seconds"]["first_round"]
    right = sum(one["true"] == one["predicted"] for one in report["predictions"])
    return [
        ("digits, pooled training", "the reference", pooled, "%", True),
        ("digits, ECL, mean of 8 sites", "pooled - 1", mean, "%", mean >= pooled - 1.0),
        ("digits, ECL, worst site", "pooled - 2", worst, "%", worst >= pooled - 2.0),
        ("digits, gossip, mean", "as it is", 100 * results["gossip"]["accuracy_mean"], "%", True),
        ("digits, each alone, mean", "as it is", 100 * results["local"]["accuracy_mean"], "%", True),
        ("first round of all 8 sites", "<= 10", first, "s", first <= 10.0),
        ("the whole demo", "<= 120", total, "s", total <= 120.0),
        ("right REST answers of 8", "8", right, "", right == len(report["predictions"])),
    ]


def pair(seconds: float = 10.0) -> Measured:
    """Two deployed sites at full speed: a round of both, with exchange; and what one of them holds in memory."""
    job = parse_job(PAIR)
    with LocalFleet(job, free_port()) as fleet, FleetWatch(fleet.urls) as watch:
        _supervise(fleet, lambda: all(_received(watch, site) > 20 for site in fleet.urls))
        before, began = {site: _received(watch, site) for site in fleet.urls}, time.perf_counter()
        _supervise(fleet, lambda: time.perf_counter() - began > seconds)
        elapsed = time.perf_counter() - began
        rounds = [elapsed / (_received(watch, site) - before[site]) for site in fleet.urls]
        processes = [psutil.Process(fleet.pids(site)["site"] or 0) for site in fleet.urls]
        resident = max(process.memory_info().rss for process in processes) / 1e6
        share = max(process.memory_full_info().pss for process in processes) / 1e6
    each = 1000 * statistics.median(rounds)
    return [
        ("a round of a deployed pair, exchange included", "<= 50", each, "ms", each <= 50.0),
        ("memory of one site process, resident", "<= 350", resident, "MB", resident <= 350.0),
        ("the same, its share of what is shared", "", share, "MB", True),
    ]


def exchange_speed() -> Measured:
    """4 MB and 40 MB from trainer to trainer."""
    seconds, rate = exchange.measure(elements=1_000_000, updates=40)
    _, rate_large = exchange.measure(elements=10_000_000, updates=8)
    middle = 1000 * seconds
    return [
        ("4 MB, trainer to trainer, p50", "<= 80", middle, "ms", middle <= 80.0),
        ("4 MB updates both ways at once", ">= 150", rate, "MB/s", rate >= 150.0),
        ("40 MB updates both ways at once", ">= 150", rate_large, "MB/s", rate_large >= 150.0),
    ]


def steps() -> Measured:
    """The trainer's step rate with the exchange on, off, and with its neighbour away."""
    exchanging, away = step_rate.measure(neighbour=True), step_rate.measure(neighbour=False)
    return [
        ("local steps per second, training alone", "", away.reference, "1/s", True),
        ("step rate with exchange / without", ">= 0.95", exchanging.ratio, "", exchanging.ratio >= 0.95),
        ("step rate, neighbour away / training alone", ">= 0.95", away.ratio, "", away.ratio >= 0.95),
    ]


def simulations() -> Measured:
    """A simulated step against a plain one, and what a hundred and a thousand sites take."""
    costs = [(name, simulation.cost(case)) for name, case in simulation.CASES.items()]
    hundred, thousand = simulation.fleet(100), simulation.fleet(1000)
    steps_of = "80 steps of {} sites of digits, whole command"
    return [
        *((f"a simulated step / a plain one: {name}", "<= 1.3", ratio, "", ratio <= 1.3) for name, ratio in costs),
        (f"{steps_of.format(100)}: memory", "< 4000", hundred.megabytes, "MB", hundred.megabytes < 4000),
        (f"{steps_of.format(100)}: processor time", "", hundred.seconds, "s", True),
        (f"{steps_of.format(1000)}: memory", "", thousand.megabytes, "MB", True),
        (f"{steps_of.format(1000)}: processor time", "", thousand.seconds, "s", True),
    ]


def _supervise(fleet: LocalFleet, condition: Callable[[], bool]) -> None:
    while not condition():
        fleet.supervise()
        time.sleep(0.05)


def _received(watch: FleetWatch, site: str) -> int:
    status = watch.statuses[site]
    return sum(edge["received"] for edge in status["progress"]["edges"].values()) if status else 0


def _print(rows: list[Row]) -> None:
    table = Table(title="Concord, measured here", title_justify="left")
    for column in ("what", "target", "measured", "", "load"):
        table.add_column(column)
    for row in rows:
        mark = "met" if row.met else "[red]missed[/]"
        shown = f"{row.value:.3f}" if row.value < 2 else f"{row.value:.1f}"
        table.add_row(row.what, row.target, f"{shown} {row.unit}", mark, f"{row.load:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
