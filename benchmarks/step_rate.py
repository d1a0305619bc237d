"""What the exchange costs the trainer: local steps per second with it, without it, and with nobody there.

The model and the batch are such that a round takes about as long as the default pace asks for, so the trainer never
rests and each round has its exchange. The trainer has one processor to itself; its site's exchange, its Redis and its
neighbour share another. Each case has its own reference, in which the same processes run and every site trains
alone: processors that share a core or a cache slow each other down whether or not they exchange anything. Cases and
references take turns; medians of the ratios count. The learning rate is so small that no site trains to zero loss in
the time, where arithmetic may take longer.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.split_site import Place, bench, wait_until

JOB = """\
name: step-rate
task: {name: digits, options: {model: cnn}}
split: {kind: iid}
sites: 2
topology: ring
training: {rounds: null, local_steps: 16, batch_size: 192, learning_rate: 0.001}
"""
NEIGHBOURS_BATCH = "training.batch_size=32"
"""The neighbour shares its processor with the rest, so its rounds are made as long by an easier task."""
WARM_UP = 2.0
WINDOW = 6.0


@dataclass(frozen=True, slots=True)
class Case:
    """Whether the site exchanges or trains alone, and whether its neighbour is there."""

    algorithm: str
    neighbour: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """Median steps per second without exchange, and the median ratio with it."""

    reference: float
    ratio: float


def measure(neighbour: bool, turns: int = 5) -> Cost:
    """With a `neighbour` that exchanges too, or with one that cannot be reached."""
    references, ratios = [], []
    for _ in range(turns):
        references.append(_rate(Case("local", neighbour)))
        ratios.append(_rate(Case("ecl-isvr", neighbour)) / references[-1])
    return Cost(statistics.median(references), statistics.median(ratios))


def _rate(case: Case) -> float:
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder), JOB) as made:
        measured, neighbour = made.place("N1"), made.place("N2")
        algorithm = f"algorithm={case.algorithm}"
        made.start("exchange", measured, {"N2": neighbour.url}, 1, algorithm)
        if case.neighbour:
            made.start("site", neighbour, {"N1": measured.url}, 1, algorithm, NEIGHBOURS_BATCH)
        made.start("trainer", measured, {"N2": neighbour.url}, 0, algorithm)
        wait_until(lambda: _progress(measured)["step"] > 0, "the first steps")
        if case.neighbour:
            wait_until(lambda: _progress(neighbour)["step"] > 0, "the neighbour's first steps")
        if case == Case("ecl-isvr", neighbour=True):
            wait_until(lambda: _progress(measured)["edges"]["N2"]["received"] > 0, "the first exchange")
        time.sleep(WARM_UP)
        return _steps_per_second(measured)


def _steps_per_second(place: Place) -> float:
    """From two statuses, by the trainer's own clock."""
    first = place.status()
    time.sleep(WINDOW)
    last = place.status()
    steps = last["progress"]["step"] - first["progress"]["step"]
    return float(steps / (last["reported_at"] - first["reported_at"]))


def _progress(place: Place) -> dict[str, Any]:
    return dict(place.status()["progress"])
