"""Background tasks that live and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

_PATIENCE = 0.5


class Crew:
    """Like a TaskGroup whose tasks never end on their own accord, but sure to end when told to.

    A cancellation can be lost: before Python 3.12 `asyncio.wait_for` drops one that comes together with a
    result, and libraries have such gaps too. A TaskGroup cancels once and would wait for ever; a crew cancels
    again.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Start a task; it may be cancelled alone."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return task

    async def watch(self) -> None:
        """Wait until cancelled; raises what a task raises."""
        await self._ended

    async def dismiss(self) -> None:
        """End all tasks."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=_PATIENCE)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._ended.done():
            return
        error = task.exception()
        if error is not None:
            self._ended.set_exception(error)
