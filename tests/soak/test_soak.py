"""The machinery of the soak: a planted leak is caught, and what comes and goes is not taken for one."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from soak.measure import Recorder
from soak.slopes import slope
from soak.verdicts import judge

LEAK = """
import time
kept = []
while True:
    kept.append(bytearray(400_000))
    time.sleep(0.05)
"""
STILL = "import time; time.sleep(60)"


@pytest.mark.parametrize(("leak", "verdict"), [(0.0, "flat"), (10.0, "grows")])
def test_a_leak_shows_through_what_comes_and_goes(leak: float, verdict: str) -> None:
    chance = random.Random(0)
    times = [float(second) for second in range(1800)]
    values = [280 + leak * at / 3600 + 40 * (chance.random() < 0.2) + chance.uniform(0, 0.3) for at in times]
    found = slope(times, values)
    assert found is not None
    assert found.verdict(1.0) == verdict
    assert found.low <= leak + 0.5
    assert found.high >= leak - 0.5


def test_a_short_run_says_that_it_cannot_tell() -> None:
    found = slope([float(second) for second in range(60)], [280 + 0.2 * (second // 5 % 2) for second in range(60)])
    assert found is not None
    assert found.verdict(1.0) == "unresolved"


def test_a_process_that_leaks_is_found_beside_one_that_does_not() -> None:
    programs = {name: subprocess.Popen([sys.executable, "-c", code]) for name, code in (("a", LEAK), ("b", STILL))}
    recorder = Recorder(lambda: {name: program.pid for name, program in programs.items()}, {}, {}, interval=0.02)
    begin = time.monotonic()
    recorder.start()
    try:
        time.sleep(4.0)
    finally:
        recorder.stop()
        for program in programs.values():
            program.kill()
            program.wait()
    verdicts = {
        row["series"].split()[1]: row["verdict"]
        for row in judge(recorder.series, 1.0, begin, time.monotonic())
        if row["series"].startswith("rss")
    }
    assert verdicts == {"a": "grows", "b": "flat"}
