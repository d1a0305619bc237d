"""How many connections a server holds, and how long each may take: what uvicorn and its parser do not look after.

A stranger costs a place and a few kilobytes for a few seconds, however little, slowly or much it sends. Knows no route
and no identity.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv6Address, ip_address
from typing import Any, cast

import httptools
from fastapi import Request
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from concord.apps.joined_writes import JoinedWrites

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What callers of one port may take.

    `connections` in all, `per_address` from one remote address (of IPv6: one /64); beyond, whoever has waited longest
    without a request has to go, and if all are at work the newcomer is turned away. `url_bytes` and `head_bytes` bound
    the target and all of a request before its body. Seconds: `handshake_seconds` for TLS, `head_seconds` for the head
    of a request, from the connection or its first byte on. A body must bring `body_rate` bytes a second over each
    `body_seconds`; an answer must go out a little in each `answer_seconds`. Once a request is answered, or refused, of
    what still comes `linger_bytes` within `linger_seconds` are thrown away, so that the caller gets to read why.
    """

    connections: int = 512
    per_address: int = 256
    url_bytes: int = 4 << 10
    head_bytes: int = 16 << 10
    handshake_seconds: float = 10.0
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    body_rate: float = 8 << 10
    answer_seconds: float = 60.0
    linger_bytes: int = 16 << 20
    linger_seconds: float = 5.0


@dataclass(eq=False, slots=True)
class Place:
    """One connection, which `close` ends; `waiting_since` (loop's seconds) is None while it is at work."""

    address: str
    waiting_since: float | None
    close: Callable[[], object]


class Entrance:
    """The connections of one server; counts in `turned_away` those that were refused or cut off, by why."""

    def __init__(
        self,
        protocol: type[GuardedProtocol],
        limits: ConnectionLimits,
        tls: ssl.SSLContext | None = None,
        turned_away: Counter[str] | None = None,
    ) -> None:
        self.limits = limits
        self.tls = tls
        self.turned_away: Counter[str] = Counter() if turned_away is None else turned_away
        self._protocol = protocol
        self._places: dict[Place, None] = {}
        self._by_address: Counter[str] = Counter()
        self._handshakes: set[asyncio.Task[None]] = set()

    def __call__(self, **arguments: Any) -> GuardedProtocol:
        """The protocol of a new connection, as uvicorn asks for one."""
        return self._protocol(self, **arguments)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def at_work(self) -> int:
        """Connections with a request whose head has come, and whose answer is not out."""
        return sum(place.waiting_since is None for place in self._places)

    async def accept(self, listener: socket.socket, new: Callable[[], GuardedProtocol]) -> None:
        """Let in over TLS who comes to a listening socket, for ever.

        uvicorn would have each shake hands, which costs much and may take a minute, before it counted them.
        """
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:
                log.error("cannot accept connections: %s", error)
                await asyncio.sleep(1.0)
                continue
            place = self.admit(address_key(address[0]), loop.time(), _nothing)
            if place is None:
                connection.close()
                continue
            handshake = loop.create_task(self._shake_hands(connection, place, new()))
            place.close = handshake.cancel
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    def close(self) -> None:
        """End the handshakes that are under way: the server stops."""
        for task in self._handshakes:
            task.cancel()

    async def _shake_hands(self, connection: socket.socket, place: Place, protocol: GuardedProtocol) -> None:
        protocol.place = place
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self.tls,
                ssl_handshake_timeout=self.limits.handshake_seconds,
            )
        except OSError as error:
            log.debug("no handshake with %s: %s", place.address, error)
            self.leave(place)
            connection.close()
        except asyncio.CancelledError:
            self.leave(place)
            connection.close()
            raise

    def admit(self, address: str, now: float, close: Callable[[], object]) -> Place | None:
        """A place for a new connection; None if there is none."""
        place = Place(address, now, close)
        crowded = self._by_address[address] >= self.limits.per_address
        if (crowded and not self._make_room(address)) or (
            len(self._places) >= self.limits.connections and not self._make_room(None)
        ):
            self.turned_away["full"] += 1
            return None
        self._places[place] = None
        self._by_address[place.address] += 1
        return place

    def leave(self, place: Place) -> None:
        """Give a place back; a second time changes nothing."""
        if place in self._places:
            del self._places[place]
            self._by_address[place.address] -= 1
            if not self._by_address[place.address]:
                del self._by_address[place.address]

    def _make_room(self, address: str | None) -> bool:
        idle = (
            (place.waiting_since, number, place)
            for number, place in enumerate(self._places)
            if place.waiting_since is not None and address in (None, place.address)
        )
        *_, longest = min(idle, default=(None, None))
        if longest is None:
            return False
        self.turned_away["idle"] += 1
        self.leave(longest)
        longest.close()
        return True


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    reason: str
    detail: str

    def message(self) -> bytes:
        # `error` is what callers of the prediction routes read, the other two what neighbours do.
        body = json.dumps({"error": self.detail, "reason": self.reason, "detail": self.detail}).encode()
        retry = b"retry-after: 1\r\n" if self.status == 503 else b""
        length = str(len(body)).encode()
        head = b"content-type: application/json\r\ncontent-length: " + length + b"\r\nconnection: close\r\n\r\n"
        return STATUS_LINE[self.status] + retry + head + body


_MALFORMED = _Refusal(400, "malformed", "this is not HTTP/1.1 as it should be")
_FULL = _Refusal(503, "full", "there are too many connections")
_SLOW = _Refusal(408, "slow", "the request took too long to arrive")
_LONG_URL = _Refusal(414, "head", "the URL is too long")
_LONG_HEAD = _Refusal(431, "head", "the headers are too long")
_ENCODED = _Refusal(415, "encoding", "bodies must be sent as they are: no Content-Encoding but identity")


class _RefusedError(Exception):
    """Stops the parser; the protocol knows why."""


class _Phase(Enum):
    HEAD = auto()
    """The head of a request is awaited, or has begun."""
    BODY = auto()
    ANSWERING = auto()
    """The request is here, its answer is not out."""
    IDLE = auto()
    """Nothing of a next request has come; uvicorn ends it after a time."""
    LINGERING = auto()
    """Answered before all of the body had come."""
    PARTING = auto()
    """Refused; whatever comes is thrown away."""


class GuardedProtocol(HttpToolsProtocol):
    """A connection within the limits of its entrance."""

    def __init__(self, entrance: Entrance, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.place: Place | None = None
        """Given beforehand if somebody else has admitted the connection."""
        self._entrance = entrance
        self._limits = entrance.limits
        self._refusal = _MALFORMED
        self._phase = _Phase.HEAD
        self._since = 0.0
        self._received = 0
        """Bytes since the phase began; of a head, those that the parser has told."""
        self._content = 0
        """Bytes of the body among them."""
        self._alarm: asyncio.TimerHandle | None = None
        self._outflow: asyncio.TimerHandle | None = None

    # --- the connection -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As in the base class, if there is a place."""
        self._joined = JoinedWrites(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._joined))
        if self.place is None:
            self.place = self._entrance.admit(_address(transport), self.loop.time(), transport.close)
        if self.place is None:
            self._phase = _Phase.PARTING
            transport.write(_FULL.message())
            transport.close()
            return
        self.place.close = transport.close
        self._begin(_Phase.HEAD)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """As in the base class; the place is free again."""
        for timer in (self._alarm, self._outflow):
            if timer is not None:
                timer.cancel()
        if self.place is not None:
            self._entrance.leave(self.place)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As in the base class, within the limits, and without a line in the log for whatever a stranger sends."""
        if self._phase is _Phase.PARTING:
            self._throw_away(len(data))
            return
        if self._phase is _Phase.IDLE:
            self._begin(_Phase.HEAD)
        self._unset_keepalive_if_required()
        self._received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as any other request, which is how one declines
        except httptools.HttpParserError:
            self._turn_away(self._refusal)
            return
        if self._phase is _Phase.HEAD and self._received > self._limits.head_bytes:
            self._turn_away(_LONG_HEAD)
        elif self._phase is _Phase.BODY and self._received - 8 * self._content > self._limits.head_bytes:
            self._turn_away(_LONG_HEAD)  # chunks of nothing but their own heads, or trailers without end
        elif self._phase in _WATCHED:
            self._watch()

    def pause_writing(self) -> None:
        """As in the base class; the answer must go out in time."""
        super().pause_writing()
        unsent = self.transport.get_write_buffer_size()
        self._outflow = self.loop.call_later(self._limits.answer_seconds, self._look_at_outflow, unsent)

    def resume_writing(self) -> None:
        """As in the base class."""
        super().resume_writing()
        if self._outflow is not None:
            self._outflow.cancel()
            self._outflow = None

    # --- the parser -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """As in the base class."""
        if self._phase is not _Phase.HEAD:
            self._begin(_Phase.HEAD)  # behind another request
        super().on_message_begin()
        self._told = 0

    def on_url(self, url: bytes) -> None:
        """As in the base class, up to a length."""
        super().on_url(url)
        if len(self.url) > self._limits.url_bytes:
            self._refuse(_LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        """As in the base class, up to a length."""
        super().on_header(name, value)
        self._told += len(name) + len(value) + 4
        if self._told > self._limits.head_bytes:
            self._refuse(_LONG_HEAD)

    def on_headers_complete(self) -> None:
        """As in the base class, unless the body is encoded: nothing is decompressed here."""
        for name, value in self.headers:
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                self._refuse(_ENCODED)
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                self._refuse(_ENCODED)
        self._begin(_Phase.BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """As in the base class."""
        super().on_body(body)
        self._content += len(body)
        if self._phase is _Phase.LINGERING and self._content > self._limits.linger_bytes:
            self._cut_off("long")

    def on_message_complete(self) -> None:
        """As in the base class."""
        super().on_message_complete()
        if self._phase is _Phase.LINGERING:
            self._begin(_Phase.IDLE)
            # The base class counted from the answer, and stopped counting when something came.
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self._phase is _Phase.BODY:
            self._begin(_Phase.ANSWERING)

    def on_response_complete(self) -> None:
        """As in the base class."""
        self._joined.flush()
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return
        if self._phase is _Phase.BODY:
            self._begin(_Phase.LINGERING)
            self._watch()
        elif self._phase is _Phase.ANSWERING:
            self._begin(_Phase.IDLE)

    # --- the limits -----------------------------------------------------------------------------------------

    def _begin(self, phase: _Phase) -> None:
        before, self._phase = self._phase, phase
        self._since = self.loop.time()
        self._received = self._content = 0
        if self.place is not None and before is not _Phase.IDLE:
            self.place.waiting_since = self._since if phase in (_Phase.HEAD, _Phase.IDLE) else None
        if self.place is not None and phase is _Phase.BODY:
            self.place.waiting_since = None

    def _refuse(self, refusal: _Refusal) -> None:
        self._refusal = refusal
        raise _RefusedError

    def _turn_away(self, refusal: _Refusal) -> None:
        """Say why, if nothing was said yet, and hear no more."""
        self._entrance.turned_away[refusal.reason] += 1
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(refusal.message())
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self._begin(_Phase.PARTING)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._watch(anew=True)

    def _throw_away(self, size: int) -> None:
        self._content += size
        if self._content > self._limits.linger_bytes:
            self._cut_off("long")

    def _cut_off(self, why: str) -> None:
        if not self.transport.is_closing():
            self._entrance.turned_away[why] += 1
            self.transport.abort()

    def _watch(self, *, anew: bool = False) -> None:
        if self._alarm is not None and anew:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None:
            self._alarm = self.loop.call_at(self._since + self._patience(), self._look)

    def _patience(self) -> float:
        if self._phase is _Phase.HEAD:
            return self._limits.head_seconds
        return self._limits.body_seconds if self._phase is _Phase.BODY else self._limits.linger_seconds

    def _look(self) -> None:
        self._alarm = None
        if self._phase not in _WATCHED or self.transport.is_closing():
            return
        if self.loop.time() < self._since + self._patience():
            self._watch()
        elif self._phase in (_Phase.HEAD, _Phase.BODY) and self._is_excused():
            self._since = self.loop.time()
            self._received = self._content = 0
            self._watch()
        elif self._phase is _Phase.HEAD and not self._received:
            self._entrance.turned_away["silent"] += 1
            self.transport.close()
        elif self._phase in (_Phase.HEAD, _Phase.BODY):
            self._turn_away(_SLOW)
        elif self._phase is _Phase.PARTING:
            self.transport.abort()
        else:
            self._cut_off("slow")

    def _is_excused(self) -> bool:
        """Whether it is this end that does not read, or enough of a body came since the last look."""
        enough = self._limits.body_rate * self._limits.body_seconds
        return self.flow.read_paused or (self._phase is _Phase.BODY and self._content >= enough)

    def _look_at_outflow(self, before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent >= before:
            self._cut_off("slow")
            return
        self._outflow = self.loop.call_later(self._limits.answer_seconds, self._look_at_outflow, unsent)


def _nothing() -> None:
    """For a connection that nobody has yet."""


_WATCHED = frozenset({_Phase.HEAD, _Phase.BODY, _Phase.LINGERING, _Phase.PARTING})


def _address(transport: asyncio.Transport) -> str:
    """Who calls, as far as it can be counted: a caller has a whole /64 of IPv6 addresses."""
    name = transport.get_extra_info("peername")
    return address_key(name[0]) if isinstance(name, tuple) and name else ""


def remote_address(request: Request) -> str:
    """Whom a request came from, to count by."""
    return address_key(request.client.host) if request.client is not None else ""


def address_key(text: str) -> str:
    """An address as a key to count by: of IPv6 its /64, unless it stands for one of IPv4."""
    if ":" not in text:
        return text
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"{int(address) >> 64:016x}/64"
    return str(getattr(address, "ipv4_mapped", None) or address)
