"""An event loop in a thread of its own, for the network half of a process whose main thread trains."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import uvloop

Ready = Callable[[], None]
Service = Callable[[Ready, asyncio.Event], Awaitable[None]]
"""An asynchronous program: calls the first argument once it serves, and returns soon after the event is set."""


class Background:
    """Runs one `Service` in a thread from `start` to `stop`; what it raises is raised to the caller."""

    def __init__(self, service: Service, on_exit: Callable[[], None]) -> None:
        self._service = service
        self._on_exit = on_exit
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    def start(self, timeout: float) -> None:
        """Start, and return when the service is ready; TimeoutError if it is not within `timeout` seconds."""
        self._thread.start()
        if not self._started.wait(timeout):
            raise TimeoutError(f"the network half was not ready within {timeout} s")
        self._raise_error()

    def stop(self, timeout: float) -> None:
        """End the service and its thread."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout)
        self._raise_error()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._loop = None
            self._started.set()
            self._on_exit()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await self._service(self._started.set, self._stop)

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
