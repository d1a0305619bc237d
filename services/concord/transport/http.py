"""Requests to neighbours over pooled connections; httpx and its exceptions stay in here.

Answers are read with a limit on their size, and never decompressed, so that no neighbour can fill our memory.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx

from concord.errors import REASONS, TransportError
from concord.sealed import digest
from concord.site.ports import Slot
from concord.transport.identity import Signer
from concord.transport.tls import SiteTls
from concord.wire.messages import Stamp

_ERROR_BYTES = 1 << 16
"""The most that is read of an answer that carries no update."""
_LONGEST_RETRY_AFTER = 300.0
_BROKEN_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""What is seen of a server that ends a connection without a word."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The neighbour holds the update, or a newer one: `newest` is what it has."""

    newest: Stamp


@dataclass(frozen=True, slots=True)
class Refusal:
    """The neighbour is well, but will not have it: 401, 403, 409, 413, 422 and their like."""

    status: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Busy:
    """The neighbour asks for patience (429, 503); `retry_after` in seconds, if it said."""

    status: int
    retry_after: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """The neighbour has nothing newer for us."""


PushResult = Delivered | Refusal | Busy
PullResult = Slot | Nothing | Refusal | Busy


class SignedAuth(httpx.Auth):
    """Signs each request for one receiving site."""

    requires_request_body = True

    def __init__(self, signer: Signer, audience: str) -> None:
        self._signer = signer
        self._audience = audience

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the headers that say who asks, and prove it."""
        target = request.url.raw_path.decode()
        request.headers.update(self._signer.headers(self._audience, request.method, target, digest(request.content)))
        yield request


class _Pool:
    """Connections with the certificates of one moment; once `retired`, closed as soon as nobody uses them."""

    def __init__(self, client: httpx.AsyncClient, generation: int) -> None:
        self.generation = generation
        self._client = client
        self._users = 0
        self._retired = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[httpx.AsyncClient]:
        self._users += 1
        try:
            yield self._client
        finally:
            self._users -= 1
            await self._close_if_done()

    async def retire(self) -> None:
        self._retired = True
        await self._close_if_done()

    async def _close_if_done(self) -> None:
        if self._retired and not self._users:
            await self._client.aclose()


class NeighbourClient:
    """Pushes to and pulls from neighbours. `timeout` in seconds bounds connecting and each read and write.

    With `tls` of a site, neighbours are called over mutual TLS and no other way, each over connections of its own, on
    which only that neighbour answers; a plain context replaces the default verification of HTTPS neighbours.
    `headers` gives more headers for an update to a neighbour.
    TransportError from `push` and `pull` when a neighbour cannot be reached, is another than meant, or makes no sense.
    """

    def __init__(
        self,
        signer: Signer,
        timeout: float,
        tls: ssl.SSLContext | SiteTls | None = None,
        headers: Callable[[str, Stamp], Mapping[str, str]] = lambda neighbour, stamp: {},
    ) -> None:
        self._signer = signer
        self._headers = headers
        self._timeout = timeout
        self._tls = tls
        self._pools: dict[str, _Pool] = {}

    async def push(self, url: str, receiver: str, slot: Slot) -> PushResult:
        """PUT one update to the site `receiver` whose base address is `url`."""
        request = self._request("PUT", f"{url}/v1/inbox/{quote(self._signer.site)}", content=slot.blob)
        request.headers.update(self._headers(receiver, slot.stamp))
        response, body = await self._send(request, receiver, _ERROR_BYTES)
        if response.status_code == httpx.codes.NO_CONTENT:
            return Delivered(slot.stamp)
        if response.status_code == httpx.codes.OK:
            return Delivered(_known_stamp(receiver, body))
        return _read_error(receiver, response, body)

    async def pull(self, url: str, sender: str, after: Stamp | None, wait: float, max_bytes: int) -> PullResult:
        """GET what the site `sender` holds for us if newer than `after`; it may take `wait` seconds."""
        query = {"wait": f"{wait:g}"} | ({} if after is None else {"after": str(after)})
        request = self._request("GET", f"{url}/v1/outbox/{quote(self._signer.site)}", params=query, wait=wait)
        response, body = await self._send(request, sender, max_bytes)
        if response.status_code == httpx.codes.OK:
            return Slot(_parse_stamp(sender, response.headers.get("etag", "").strip('"')), body)
        if response.status_code in (httpx.codes.NO_CONTENT, httpx.codes.NOT_MODIFIED):
            return Nothing()
        return _read_error(sender, response, body)

    async def close(self) -> None:
        """Close all connections."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.retire()

    def _request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        params: dict[str, str] | None = None,
        wait: float = 0.0,
    ) -> httpx.Request:
        timeout = httpx.Timeout(self._timeout, read=self._timeout + wait)
        headers = {"accept-encoding": "identity"}
        if content is not None:
            headers["content-type"] = "application/octet-stream"
        return httpx.Request(
            method, url, params=params, content=content, headers=headers, extensions={"timeout": timeout.as_dict()}
        )

    async def _send(self, request: httpx.Request, audience: str, limit: int) -> tuple[httpx.Response, bytes]:
        where = f"{audience} at {request.url.netloc.decode()}"
        if isinstance(self._tls, SiteTls) and request.url.scheme != "https":
            raise TransportError(f"{where}: a site with certificates calls https:// addresses only")
        try:
            async with self._connections(audience) as client:
                response = await client.send(request, auth=SignedAuth(self._signer, audience), stream=True)
                try:
                    return response, await _read(response, audience, limit)
                finally:
                    await response.aclose()
        # A server may refuse our certificate in its first answer only, beyond what httpx translates.
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            detail = str(error) or type(error).__name__
            if isinstance(self._tls, SiteTls) and isinstance(error, _BROKEN_OFF):
                detail += " (perhaps it does not accept this site's certificate: its log would say so)"
            raise TransportError(f"{where}: {detail}") from error

    @asynccontextmanager
    async def _connections(self, neighbour: str) -> AsyncIterator[httpx.AsyncClient]:
        if isinstance(self._tls, SiteTls):
            key, generation = neighbour, self._tls.generation
        else:
            key, generation = "", 0
        pool, old = self._pools.get(key), None
        if pool is None or pool.generation != generation:
            pool, old = _Pool(self._client(neighbour), generation), pool
            self._pools[key] = pool
        async with pool.use() as client:
            if old is not None:
                await old.retire()
            yield client

    def _client(self, neighbour: str) -> httpx.AsyncClient:
        tls = self._tls.towards(neighbour) if isinstance(self._tls, SiteTls) else self._tls
        return httpx.AsyncClient(
            verify=tls if tls is not None else True,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=128, keepalive_expiry=30.0),
            follow_redirects=False,
            trust_env=False,
        )


async def _read(response: httpx.Response, neighbour: str, limit: int) -> bytes:
    chunks = []
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > limit:
            raise TransportError(f"{neighbour} answered with more than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _known_stamp(neighbour: str, body: bytes) -> Stamp:
    try:
        newest = json.loads(body)["newest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TransportError(f"{neighbour} answered a push with something unexpected") from error
    return _parse_stamp(neighbour, newest)


def _parse_stamp(neighbour: str, text: object) -> Stamp:
    try:
        return Stamp.parse(str(text)[:64])
    except (ValueError, TypeError) as error:
        raise TransportError(f"{neighbour} answered with {text!r:.64} for a stamp") from error


def _read_error(neighbour: str, response: httpx.Response, body: bytes) -> Refusal | Busy:
    status = response.status_code
    reason, detail = _explanation(body)
    if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
        return Busy(status, parse_retry_after(response.headers.get("retry-after"), time.time()), detail)
    if httpx.codes.is_client_error(status):
        # A reason of its own making would be counted by itself, and a neighbour could make up ever more of them.
        return Refusal(status, reason if reason in REASONS else str(status), detail)
    raise TransportError(f"{neighbour} answered with status {status}")


def _explanation(body: bytes) -> tuple[str, str]:
    try:
        fields = json.loads(body)
        return str(fields["reason"]), str(fields["detail"])[:512]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""


def parse_retry_after(text: str | None, now: float) -> float | None:
    """Seconds (0 to 300) from a Retry-After header (RFC 9110: seconds or a date); None if it says nothing."""
    if text is None:
        return None
    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - now
    except ValueError:
        return None
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER)
