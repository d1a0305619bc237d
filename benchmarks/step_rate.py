"""What the exchange costs the trainer: local steps per second with it, without it, and with nobody there.

The trainer has one processor to itself; its site's exchange, its Redis and its neighbour share another, as the
processes of a site do on a machine that has a core for each. The three cases take turns, medians count.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.split_site import Bench, Place, bench, wait_until

JOB = """\
name: step-rate
task: digits
split: {kind: iid}
sites: 2
topology: ring
training: {rounds: null, pace: 0, local_steps: 64, learning_rate: 0.02}
"""
CASES = ("local", "exchanging", "neighbour away")
WARM_UP = 2.0
WINDOW = 6.0


def measure(turns: int = 5) -> dict[str, list[float]]:
    """Steps per second of each case in each turn."""
    rates: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(turns):
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder, bench(Path(folder), JOB) as made:
                rates[case].append(_rate(made, case))
    return rates


def ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """The median over the turns of each case's rate over the local one of the same turn."""
    return {case: statistics.median(a / b for a, b in zip(rates[case], rates["local"], strict=True)) for case in CASES}


def _rate(made: Bench, case: str) -> float:
    measured, neighbour = made.place("N1"), made.place("N2")
    urls = {"N1": measured.url, "N2": neighbour.url}
    algorithm = "algorithm=local" if case == "local" else "algorithm=ecl-isvr"
    made.start("exchange", measured, {"N2": urls["N2"]}, 1, algorithm)
    if case == "exchanging":
        made.start("site", neighbour, {"N1": urls["N1"]}, 1, algorithm, "training.pace=0.05")
    made.start("trainer", measured, {"N2": urls["N2"]}, 0, algorithm)
    wait_until(lambda: _steps(measured) > 0, "the first steps")
    if case == "exchanging":
        wait_until(lambda: _received(measured) > 0, "the first exchange")
    time.sleep(WARM_UP)
    return _steps_per_second(measured)


def _steps_per_second(place: Place) -> float:
    """From two statuses, by the trainer's own clock."""
    first = place.status()
    time.sleep(WINDOW)
    last = place.status()
    steps = last["progress"]["step"] - first["progress"]["step"]
    return float(steps / (last["reported_at"] - first["reported_at"]))


def _steps(place: Place) -> int:
    return int(place.status()["progress"]["step"])


def _received(place: Place) -> int:
    return int(place.status()["progress"]["edges"]["N2"]["received"])
