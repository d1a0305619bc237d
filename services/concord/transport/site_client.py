"""Asks sites as their users do: for their status and for predictions. Must not know the exchange of updates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONDecodeError, loads

import httpx

from concord.errors import TransportError

_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class SiteAnswer:
    """A site's answer to a request that was passed on to it."""

    status: int
    body: bytes


class SiteClient:
    """`timeout` in seconds bounds a whole request; answers of more than `limit` bytes are refused."""

    def __init__(self, timeout: float = 3.0, limit: int = 2 << 20, tls: ssl.SSLContext | None = None) -> None:
        self._timeout = timeout
        self._limit = limit
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=30.0)
        self._client = httpx.AsyncClient(limits=limits, verify=True if tls is None else tls, trust_env=False)

    async def status(self, base: str) -> object:
        """The JSON of a site's status; TransportError if there is none."""
        answer = await self.fetch("GET", f"{base}/v1/status")
        if answer.status != httpx.codes.OK:
            raise TransportError(f"{base} answered {answer.status}")
        try:
            return loads(answer.body)
        except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TransportError(f"{base} did not answer with JSON") from error

    async def fetch(self, method: str, url: str, body: bytes | None = None, timeout: float | None = None) -> SiteAnswer:
        """Any request; TransportError if there is no answer in time, or too long a one."""
        headers: Mapping[str, str] = {} if body is None else _JSON
        try:
            async with (
                asyncio.timeout(timeout or self._timeout),
                self._client.stream(method, url, content=body, headers=headers, timeout=None) as response,
            ):
                return SiteAnswer(response.status_code, await self._read(url, response))
        except TimeoutError as error:
            raise TransportError(f"{url} did not answer in {timeout or self._timeout:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransportError(f"{url} cannot be reached: {str(error) or type(error).__name__}") from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _read(self, url: str, response: httpx.Response) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > self._limit:
                raise TransportError(f"{url} answers with more than {self._limit} bytes")
            chunks.append(chunk)
        return b"".join(chunks)
