"""The door for neighbours with mutual TLS: a server of its own, on a port of its own, that tells who calls.

uvicorn keeps the certificate of a connection to itself, so the connections here lay it in the scope of each request.
Knows no route: those are the exchange's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request

import concord
from concord.apps.connections import GuardedProtocol
from concord.apps.serve import Server, bind, connection_limits
from concord.identities import PeerCertificate
from concord.settings import Settings
from concord.transport.tls import FollowingContext, SiteTls, peer_certificate

_PEER = "concord.peer"


def peer_of(request: Request) -> PeerCertificate | None:
    """The certificate of the connection over which a request came; None without TLS."""
    return cast(PeerCertificate | None, request.scope.get("extensions", {}).get(_PEER))


class _TlsProtocol(GuardedProtocol):
    """A connection whose requests say whom it is with."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As in the base class, once the handshake is over."""
        super().connection_made(transport)
        connection: ssl.SSLObject = transport.get_extra_info("ssl_object")
        self._peer = peer_certificate(connection)
        context = self._entrance.tls
        if isinstance(context, FollowingContext) and connection.context is not context.now:
            transport.close()  # the certificates were replaced while it shook hands

    def on_message_begin(self) -> None:
        """As in the base class, with the certificate."""
        super().on_message_begin()
        scope = cast(dict[str, Any], self.scope)
        scope["extensions"] = {_PEER: self._peer}


def open_door(
    routes: APIRouter,
    tls: SiteTls | None,
    settings: Settings,
    on_stop: Callable[[], None],
    turned_away: Counter[str] | None = None,
) -> Server | None:
    """A server of `routes` for neighbours, bound but not yet serving; None without TLS.

    It parts from its callers whenever the certificates change. EnvironmentProblem if the port cannot be had.
    """
    if tls is None:
        return None
    app = FastAPI(title="Concord exchange", version=concord.__version__)
    app.include_router(routes)
    listener = bind(settings.host, settings.exchange_port, "--exchange-port")
    server = Server(
        app,
        listener,
        on_stop,
        tls=tls.server,
        protocol=_TlsProtocol,
        limits=connection_limits(settings),
        turned_away=turned_away,
    )
    tls.on_change(server.part)
    return server


@asynccontextmanager
async def opened(door: Server | None) -> AsyncIterator[None]:
    """Serve at the door, if there is one, while the block runs."""
    if door is None:
        yield
        return
    async with door.running():
        yield
