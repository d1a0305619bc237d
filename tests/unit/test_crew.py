"""Tasks that end together, even one that loses a cancellation."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from concord.crew import Crew

pytestmark = pytest.mark.anyio


async def stubborn(times: int) -> None:
    """Loses as many cancellations."""
    for _ in range(times):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    await asyncio.Event().wait()


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    crew = Crew()
    tasks = [crew.add(stubborn(lost)) for lost in (0, 1)]
    await asyncio.sleep(0)
    await asyncio.wait_for(crew.dismiss(), 5.0)
    assert all(task.cancelled() for task in tasks)


async def test_what_a_task_raises_is_raised_to_the_watcher() -> None:
    async def breaks() -> None:
        raise ValueError("broken")

    crew = Crew()
    crew.add(stubborn(0))
    crew.add(breaks())
    with pytest.raises(ValueError, match="broken"):
        await asyncio.wait_for(crew.watch(), 5.0)
    await crew.dismiss()


async def test_a_task_may_end_alone() -> None:
    crew = Crew()
    task = crew.add(stubborn(0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(crew.watch(), 0.05)
    await crew.dismiss()
