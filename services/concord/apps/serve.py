"""Runs an ASGI app with uvicorn from code: beside other tasks of a loop, as a whole process, or in a thread.

The port is bound before anything starts, so that a port in use is one clear error and nothing half-started.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import cast

import uvicorn
import uvloop
from fastapi import FastAPI

from concord.apps.background import Background, Ready
from concord.apps.connections import ConnectionLimits, Entrance, GuardedProtocol
from concord.apps.garbage import settle
from concord.crew import Crew
from concord.errors import EnvironmentProblem
from concord.settings import Settings

_BACKLOG = 512
_PATIENCE = 30.0
"""Seconds a server in a thread may take to start, and to stop."""
_KEEP_ALIVE = 75
"""Seconds an idle connection stays open: longer than our clients keep it, or they would use a closed one."""


def bind(host: str, port: int, flag: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes a free one. EnvironmentProblem if the address cannot be had.

    The port can be chosen with `flag`, which the error says.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        # Opened anew from its number, it knows that it is TCP: asyncio turns off Nagle's delay only for such.
        return socket.socket(fileno=listener.detach())
    except OSError as error:
        detail = error.strerror or str(error)
        raise EnvironmentProblem(
            f"cannot listen on {host} port {port}: {detail}; choose another with {flag}, or stop what uses it"
        ) from error


def connection_limits(settings: Settings) -> ConnectionLimits:
    """The limits of a process's ports."""
    return ConnectionLimits(connections=settings.connections, per_address=settings.connections_per_address)


class Server:
    """An app on a bound socket. `grace` is how many seconds requests have to end once it is told to stop.

    Before that it goes on for `drain` seconds, and asks whoever calls to come back over another connection, so that
    nobody is cut off while load balancers still send callers here. `on_stop` is called afterwards: it should let go of
    requests that are held open on purpose. With `tls` it speaks nothing else; `protocol` then is who reads the
    connections, within `limits`. `turned_away` counts those that were refused or cut off, by why.
    """

    def __init__(
        self,
        app: FastAPI,
        listener: socket.socket,
        on_stop: Callable[[], None] | None = None,
        grace: int = 3,
        drain: float = 0.0,
        tls: ssl.SSLContext | None = None,
        protocol: type[GuardedProtocol] = GuardedProtocol,
        limits: ConnectionLimits | None = None,
        turned_away: Counter[str] | None = None,
    ) -> None:
        host, self.port = listener.getsockname()[:2]
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"
        self._listener = listener
        # uvicorn is told nothing of TLS: it would make a context of its own, from files, once.
        self.entrance = Entrance(protocol, limits or ConnectionLimits(), tls, turned_away)
        config = uvicorn.Config(
            app,
            http=cast(type[asyncio.Protocol], self.entrance),
            proxy_headers=False,  # a caller on this machine could choose its own address
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=grace,
        )
        config.load()
        self._uvicorn = _Uvicorn(config, on_stop or _nothing, drain, self.entrance)

    async def serve(self) -> None:
        """Serve until `stop` is called; EnvironmentProblem if the app cannot start."""
        try:
            await self._uvicorn.serve([self._listener])
        except SystemExit as error:
            raise EnvironmentProblem("the server could not start; its log says why") from error
        finally:
            self._listener.close()

    def stop(self) -> None:
        """End `serve` soon, letting requests finish. From another thread use `call_soon_threadsafe`."""
        self._uvicorn.leave.set()

    def part(self) -> None:
        """Close every connection as soon as no request is under way on it; callers come back over new ones."""
        for connection in list(self._uvicorn.server_state.connections):
            connection.shutdown()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the block runs; entered once requests are answered."""
        serving = asyncio.create_task(self.serve(), name="http server")
        started = asyncio.create_task(self._uvicorn.ready.wait())
        try:
            await asyncio.wait((serving, started), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            yield
        finally:
            started.cancel()
            self.stop()
            await serving


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the process, says when it is ready, and calls `on_stop` before it waits."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None], drain: float, entrance: Entrance) -> None:
        super().__init__(config)
        self._entrance = entrance
        self._accepting: Crew | None = None
        self.ready = asyncio.Event()
        self.leave = asyncio.Event()
        self._on_stop = on_stop
        self._drain = drain

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: a process that is more than a server decides itself what a signal means."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As in the base class, but for TLS, then ready."""
        if self._entrance.tls is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._accepting = Crew()
            new = partial(
                self._entrance, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            for listener in sockets or ():
                self._accepting.add(self._entrance.accept(listener, new))
        self.ready.set()

    async def main_loop(self) -> None:
        """Until told to leave; the base class looks ten times a second, which idle sites need not pay for."""
        await self.on_tick(0)
        await self.leave.wait()
        if self._drain > 0:
            self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
            await asyncio.sleep(self._drain)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As in the base class, after `on_stop`."""
        self._on_stop()
        if self._accepting is not None:
            await self._accepting.dismiss()
        self._entrance.close()
        await super().shutdown(sockets)


def _nothing() -> None:
    """For a server without requests that are held open."""


def run(server: Server, at_end: Callable[[], Awaitable[None]]) -> None:
    """Serve as this process's work until SIGTERM or SIGINT, then await `at_end`."""

    async def main() -> None:
        try:
            await server.serve()
        finally:
            await at_end()

    settle()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for number in (signal.SIGTERM, signal.SIGINT):
            runner.get_loop().add_signal_handler(number, server.stop)
        runner.run(main())


@contextmanager
def in_thread(server: Server) -> Iterator[str]:
    """Serve from a thread with a loop of its own while the block runs; gives the server's URL."""

    async def service(ready: Ready, stop: asyncio.Event) -> None:
        async with server.running():
            ready()
            await stop.wait()

    background = Background(service, on_exit=_nothing)
    background.start(_PATIENCE)
    try:
        yield server.url
    finally:
        background.stop(_PATIENCE)
