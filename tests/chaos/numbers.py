"""Two numbers: how soon a killed trainer trains again, and what a dead neighbour costs. `python -m chaos.numbers`.

A trainer starts here as it does for users, by its command, with nothing warm. Seconds of processor say what a start
takes where the machine is busy with other things.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx
import psutil

from benchmarks.split_site import Place, bench, free_port, wait_until

JOB = """\
name: numbers
task: {name: digits, options: {model: cnn}}
split: {kind: iid}
sites: 2
topology: ring
algorithm: ecl-isvr
training: {rounds: null, local_steps: 16, batch_size: 192, learning_rate: 0.001}
checkpoint: {every: 0.5}
"""
NEIGHBOURS = ("training.batch_size=32", "training.pace=0.1")
WINDOW = 3.0
_LOOK = 0.01


def recovery(times: int) -> list[dict[str, float]]:
    """Seconds, and seconds of processor, from the restart of a killed trainer to its first step on."""
    found = []
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder), JOB) as made:
        place = made.place("N1")
        peers = {"N2": f"http://127.0.0.1:{free_port()}"}
        for life in range(times + 1):
            began = time.monotonic()
            process = made.start("trainer", place, peers, 0)
            process.cpu_affinity(range(os.cpu_count() or 1))
            first = _first_step(place, life + 1)
            used = process.cpu_times()
            if life:
                print(f"start {life}: {first - began:.2f} s, {used.user + used.system:.2f} s of processor", flush=True)
                found.append({"seconds": first - began, "processor": used.user + used.system})
            before = _saved(place)
            wait_until(lambda before=before: _saved(place) > before, "a checkpoint of this life")  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.wait(10)
    return found


def _saved(place: Place) -> str:
    """The name of the newest checkpoint; they rise."""
    return max((path.name for path in (place.folder / "trainer").glob("checkpoint-*.sealed")), default="")


def _first_step(place: Place, incarnation: int) -> float:
    """When the trainer of this life first says that it stepped."""
    at_start: int | None = None
    while True:
        try:
            progress = httpx.get(f"{place.url}/v1/status", timeout=5.0).json()["progress"]
        except (httpx.HTTPError, KeyError):
            time.sleep(_LOOK)
            continue
        if progress["incarnation"] == incarnation:
            at_start = progress["step"] if at_start is None else at_start
            if progress["step"] > at_start or (at_start and progress["loss"] is not None):
                return time.monotonic()
        time.sleep(_LOOK)


def imports() -> dict[str, float]:
    """Seconds of processor that a trainer's imports take, and torch's alone among them."""

    def used(code: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return {code: median(used(code) for _ in range(3)) for code in ("import torch", "import concord.apps.trainer")}


def dead_neighbour(pairs: int) -> list[dict[str, float]]:
    """Steps per second, and per second of the trainer's processor, with the neighbour alive and dead, in turns."""
    found = []
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder), JOB) as made:
        measured, other = made.place("N1"), made.place("N2")
        made.start("exchange", measured, {"N2": other.url}, 1)
        trainer_place = Place("N1", free_port(), measured.url_of_redis, measured.folder)
        trainer = made.start("trainer", trainer_place, {"N2": other.url}, 0)
        for _ in range(pairs):
            neighbour = made.start("site", other, {"N1": measured.url}, 1, *NEIGHBOURS)
            before = _received(trainer_place)
            wait_until(lambda before=before: _received(trainer_place) > before + 3, "news of the neighbour")
            alive = _rate(trainer_place, trainer)
            neighbour.send_signal(signal.SIGKILL)
            neighbour.wait(10)
            time.sleep(0.5)
            dead = _rate(trainer_place, trainer)
            found.append({"wall": dead[0] / alive[0], "processor": dead[1] / alive[1]})
            print(f"steps per second, dead / alive: {found[-1]}", flush=True)
    return found


def _received(place: Place) -> int:
    try:
        return int(place.status()["progress"]["edges"]["N2"]["received"])
    except (httpx.HTTPError, KeyError):
        return 0


def _rate(place: Place, process: psutil.Process) -> tuple[float, float]:
    def now() -> tuple[int, float, float]:
        used = process.cpu_times()
        status = place.status()
        return status["progress"]["step"], status["reported_at"], used.user + used.system

    step, at, used = now()
    time.sleep(WINDOW)
    step_after, at_after, used_after = now()
    return (step_after - step) / (at_after - at), (step_after - step) / (used_after - used)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--times", type=int, default=7)
    arguments.add_argument("--out", type=Path, default=Path("out/chaos-numbers.json"))
    options = arguments.parse_args()
    starts, took, ratios = recovery(options.times), imports(), dead_neighbour(options.times)
    result = {
        "load": os.getloadavg()[0],
        "recovery": {key: median(start[key] for start in starts) for key in starts[0]},
        "imports": took,
        "dead_neighbour": {key: median(ratio[key] for ratio in ratios) for key in ratios[0]},
        "all": {"recovery": starts, "dead_neighbour": ratios},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
