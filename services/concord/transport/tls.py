"""Mutual TLS between sites: contexts that follow the files of a folder, and whom a connection is with.

Each new connection takes the context of that moment, so that certificates, keys and CAs change without a restart, and
a CA that was taken away counts no more. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from concord.errors import CertificateError, IdentityError
from concord.identities import PeerCertificate, certified_site, site_uri
from concord.transport.material import Facts, Material, date, facts_of, load, mark, read

log = logging.getLogger(__name__)

LOOK_INTERVAL = 3.0
"""Seconds between two looks at the files."""
_QUIET = 60.0
"""Seconds between two words on connections that were refused: anyone can make as many as they like."""


def peer_certificate(connection: ssl.SSLObject) -> PeerCertificate:
    """Whom a connection is with, once its handshake is over."""
    facts = facts_of(connection.getpeercert() or {})
    return PeerCertificate(facts.uris, facts.until)


class _Handshake(ssl.SSLObject):
    """A connection that tells how its handshake ended, before a byte of anything else has gone over it."""

    made: Callable[[ssl.SSLObject], None]
    failed: Callable[[ssl.SSLError], None]

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.failed(error)
            raise
        self.made(self)


class FollowingContext(ssl.SSLContext):
    """Stands for another context, chosen anew for each connection.

    Servers and clients keep the context that they were given, and OpenSSL never forgets a CA that a context knows. So
    they are given this one, of which only `wrap_bio` is used: by asyncio, uvloop and anyio alike.
    """

    _choose: Callable[[], ssl.SSLContext]
    _made: Callable[[ssl.SSLObject], None]
    _failed: Callable[[ssl.SSLError], None]

    @classmethod
    def over(
        cls,
        choose: Callable[[], ssl.SSLContext],
        made: Callable[[ssl.SSLObject], None],
        failed: Callable[[ssl.SSLError], None],
    ) -> Self:
        """A context for the connections of which `made` and `failed` want to know."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)  # as itself it would trust nobody, so a use by mistake fails
        context._choose, context._made, context._failed = choose, made, failed
        return context

    @property
    def now(self) -> ssl.SSLContext:
        """The context that a new connection would get."""
        return self._choose()

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """As in the base class, by the context of this moment."""
        connection = self._choose().wrap_bio(*arguments, **options)
        assert isinstance(connection, _Handshake)  # noqa: S101 (for mypy: `_use` sees to it)
        connection.made, connection.failed = self._made, self._failed
        return connection


class SiteTls:
    """The certificate of one site and the CAs it trusts, as they are in a folder now.

    `server` is the context for its neighbours' connections, `refused` counts those that were not let in.
    CertificateError from the start if the folder cannot be used; a replacement that cannot be is not taken, and the
    log says so once.
    """

    def __init__(self, folder: Path, federation: str, site: str, clock: Callable[[], float] = time.time) -> None:
        self.federation = federation
        self.site = site
        self.generation = 0
        self.refused = 0
        self._folder = folder
        self._clock = clock
        self._material = self._load()
        self._problem: str | None = None
        self._told_at = -math.inf
        self._listeners: list[Callable[[], None]] = []
        self.server: ssl.SSLContext = FollowingContext.over(
            lambda: self._material.server, made=_nothing, failed=self._note_refusal
        )

    @property
    def facts(self) -> Facts:
        """What the certificate in use says of itself."""
        return self._material.facts

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "until": date(self.facts.until),
            "issuer": self.facts.issuer,
            "renewals": self.generation,
            "problem": self._problem,
            "refused": self.refused,
        }

    def towards(self, neighbour: str) -> ssl.SSLContext:
        """A context for connections to one neighbour: a server that is another site is refused in the handshake."""
        return FollowingContext.over(
            lambda: self._material.client, made=partial(self._check_neighbour, neighbour), failed=_nothing
        )

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have `listener` called whenever the material was replaced."""
        self._listeners.append(listener)

    async def follow(self, interval: float = LOOK_INTERVAL) -> None:
        """Look at the files every `interval` seconds, for ever."""
        while True:
            await asyncio.sleep(interval)
            if await asyncio.to_thread(self.look):
                for listener in self._listeners:
                    listener()

    def look(self) -> bool:
        """Take what is in the folder now; whether that is something new."""
        if mark(self._folder) == self._material.mark:
            return False
        try:
            if read(self._folder) == self._material.content:
                self._problem = None
                return False
            material = self._load()
        except CertificateError as error:
            self._complain(str(error))
            return False
        self._material, self._problem = material, None
        self.generation += 1
        log.info("new certificates are in use, that of this site until %s", date(material.facts.until))
        return True

    def _load(self) -> Material:
        material = load(self._folder, self.federation, self.site, self._clock())
        for context in (material.server, material.client):
            context.sslobject_class = _Handshake
        return material

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            log.error("the certificates are not replaced, those of before stay in use: %s", problem)
        self._problem = problem

    def _note_refusal(self, error: ssl.SSLError) -> None:
        self.refused += 1
        now = self._clock()
        if abs(now - self._told_at) >= _QUIET:
            self._told_at = now
            log.warning("a connection to the exchange was refused, %d until now: %s", self.refused, error)

    def _check_neighbour(self, neighbour: str, connection: ssl.SSLObject) -> None:
        certificate = peer_certificate(connection)
        try:
            site = certified_site(certificate.uris, self.federation)
        except IdentityError as error:
            raise ssl.SSLError(ssl.SSLErrorNumber.SSL_ERROR_SSL, str(error)) from error
        if site != neighbour:
            wanted = site_uri(self.federation, neighbour)
            raise ssl.SSLError(
                ssl.SSLErrorNumber.SSL_ERROR_SSL, f"the certificate names {certificate.uris[0]}, not {wanted}"
            )


def _nothing(_: Mapping[str, Any] | ssl.SSLObject | ssl.SSLError) -> None:
    """For who does not want to know."""
