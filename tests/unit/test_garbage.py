"""What is not in use any more does not stay the process's."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio
import psutil
from concord.apps.garbage import giving_back

async def measure():
    size = lambda: psutil.Process().memory_info().rss / 1e6
    before = size()
    updates, kept = [], []
    for _ in range(1000):
        updates.append(bytearray(b"x" * 40_000))
        kept.append(bytearray(b"x" * 1_000))
    del updates
    holes = size() - before
    async with giving_back(every=0.01):
        await asyncio.sleep(0.2)
    print(holes, size() - before, len(kept))

asyncio.run(measure())
"""


def test_holes_between_things_that_stay_are_given_back() -> None:
    # A process of its own: the heap of this one has holes already.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    holes, left, kept = map(float, done.stdout.split())
    assert kept == 1000
    assert holes > 30
    assert left < 10
