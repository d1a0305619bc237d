"""Runs eight sites for so many minutes under faults, and fails if something surely grows."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chaos.faults import KINDS
from chaos.federation import Federation, build, running
from chaos.wires import HOST
from concord.job import parse_job
from soak.measure import Recorder
from soak.verdicts import draw, judge

JOB = """\
name: soak
task: digits
sites: 8
topology: ring
algorithm: ecl-isvr
training: {rounds: null, pace: 0, local_steps: 8, batch_size: 32, learning_rate: 0.05}
exchange: {timeout: 2}
evaluation: {every: 10}
checkpoint: {every: 5}
serving: {every: 5}
"""
LASTING = ("pause", "redis-emptied", "redis-full", "delay", "loss", "narrow", "partition", "read-only", "clock-jump")
"""Faults that every site has: its processes outlive them, so that their memory is one series."""
DEADLY = ("kill", "kill-trainer", "torn-checkpoint")
"""Faults of N2 and N6 only. N4 and N8, which are one process too, live as long as the run."""
EVERY = 10.0
"""Seconds from one fault to the next."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=30.0)
    arguments.add_argument("--warm-up", type=float, default=None, help="minutes (default: a fifth)")
    arguments.add_argument("--out", type=Path, default=Path("out/soak"))
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this ends its sites too
    options.out.mkdir(parents=True, exist_ok=True)
    warm_up = 60 * (options.minutes / 5 if options.warm_up is None else options.warm_up)
    with tempfile.TemporaryDirectory(prefix="soak-") as name, running(build(parse_job(JOB), Path(name), 0)) as world:
        recorder = Recorder(
            lambda: pids(world),
            {site.name: site.redis.url for site in world.sites.values()},
            {site.name: f"http://{HOST}:{site.door}/v1/status" for site in world.sites.values()},
        )
        begin = time.monotonic()
        recorder.start()
        struck = _trouble(world, begin + 60 * options.minutes)
        recorder.stop()
        deaths = [f"{site.name} {death}" for site in world.sites.values() for death in site.deaths]
    rows = judge(recorder.series, warm_up, begin, time.monotonic())
    surely = [row["series"] for row in rows if row["verdict"] == "grows"]
    result = {"minutes": options.minutes, "warm_up": warm_up / 60, "faults": struck, "deaths": deaths}
    result |= {"load": os.getloadavg()[0], "rows": rows}
    (options.out / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(recorder.series, options.out / "soak.png")
    for row in rows:
        print("{series}: {per_hour:+.2f} an hour ({low:+.2f} to {high:+.2f}), {verdict}".format(**row))
    print(f"{struck} faults; surely growing: {surely or 'nothing'}")
    raise SystemExit(1 if surely else 0)


def pids(world: Federation) -> dict[str, int]:
    """Every process that runs now, by site and kind."""
    found = {
        f"{site.name}/{worker.kind}": worker.pid for site in world.sites.values() for worker in site.workers.values()
    }
    return {name: pid for name, pid in found.items() if pid is not None}


def _trouble(world: Federation, end: float) -> int:
    """One fault after the other until then; how many there were."""
    draw_, count = random.Random(0), 0
    names = list(world.sites)
    while time.monotonic() < end:
        kind = KINDS[draw_.choice((*LASTING, *DEADLY))]
        site = world.sites[draw_.choice(names[1::4] if kind.name in DEADLY else names)]
        undo = kind.begin(world, site, draw_)
        count += 1
        _wait(world, min(end, time.monotonic() + draw_.uniform(*kind.lasts)))
        if undo is not None:
            undo()
        _wait(world, min(end, time.monotonic() + EVERY))
    return count


def _wait(world: Federation, until: float, tend: Callable[[float], None] = time.sleep) -> None:
    while time.monotonic() < until:
        world.tend()
        tend(0.1)


if __name__ == "__main__":
    main()
