"""What is not in use any more does not stay the process's."""

from __future__ import annotations

import asyncio

import psutil

from concord.apps.garbage import giving_back

MEGABYTES = 1e6


def test_holes_between_things_that_stay_are_given_back() -> None:
    process = psutil.Process()

    async def measure() -> tuple[float, float]:
        before = process.memory_info().rss
        updates, kept = [], []
        for _ in range(1000):
            updates.append(bytearray(b"x" * 40_000))
            kept.append(bytearray(b"x" * 1_000))
        del updates
        holes = process.memory_info().rss - before
        async with giving_back(every=0.01):
            await asyncio.sleep(0.2)
        assert len(kept) == 1000
        return holes / MEGABYTES, (process.memory_info().rss - before) / MEGABYTES

    holes, left = asyncio.run(measure())
    assert holes > 30
    assert left < 10
