"""Who sent a request: what its certificate says, and signatures with the federation's shared secret.

A signature covers the method, the target (path and query), both sites, the time, a nonce and the body's digest, so a
recorded request proves nothing at another site, later, or with other bytes. The digest is the seal that an update
ends with, so large updates are hashed once and not twice: whoever confirms a signature checks the seal too, or
refuses the body. Must not know HTTP libraries.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from concord.errors import IdentityError
from concord.identities import PeerCertificate, certified_site
from concord.settings import Secret

SITE_HEADER = "concord-site"
TIMESTAMP_HEADER = "concord-timestamp"
NONCE_HEADER = "concord-nonce"
SIGNATURE_HEADER = "concord-signature"

_NONCE_BYTES = 16
"""What is kept of a nonce: its digest, so that a long one takes no more."""

Clock = Callable[[], float]
"""Seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Insecure:
    """No secret: the site a request names is believed. For one machine or a closed network only."""


@dataclass(frozen=True, slots=True)
class Certified:
    """Mutual TLS: a request is from the site that the certificate of its connection names.

    With a `secret` it must be signed as well.
    """

    federation: str
    secret: Secret | None = None


INSECURE: Final = Insecure()
Trust = Secret | Insecure | Certified
"""How the sites of a federation know each other; to do without a proof takes saying so."""


def _secret(trust: Trust) -> Secret | None:
    """What requests are signed with, if they are."""
    if isinstance(trust, Certified):
        return trust.secret
    return trust if isinstance(trust, Secret) else None


def _sign(secret: Secret, *fields: str) -> str:
    return hmac.new(secret.value, "\n".join(fields).encode(), hashlib.sha256).hexdigest()


class Signer:
    """Signs one site's requests to its neighbours."""

    def __init__(self, site: str, trust: Trust, clock: Clock = time.time) -> None:
        self.site = site
        self._secret = _secret(trust)
        self._clock = clock

    def headers(self, audience: str, method: str, target: str, body_digest: str) -> dict[str, str]:
        """The headers for a request to the site `audience`; `target` is path and query as on the wire."""
        if self._secret is None:
            return {SITE_HEADER: self.site}
        timestamp = f"{self._clock():.3f}"
        nonce = secrets.token_hex(16)
        signature = _sign(self._secret, method, target, audience, self.site, timestamp, nonce, body_digest)
        return {
            SITE_HEADER: self.site,
            TIMESTAMP_HEADER: timestamp,
            NONCE_HEADER: nonce,
            SIGNATURE_HEADER: signature,
        }


class NonceMemory:
    """The nonces of one sender, the last `capacity` of them, in memory taken once: 24 bytes for each.

    When the oldest must go, everything signed up to its time is refused from then on: what was forgotten
    cannot be replayed, and memory stays bounded. A table of strings would grow and be made anew again and again,
    and leave holes of its size between whatever else a process keeps.
    """

    def __init__(self, capacity: int) -> None:
        self._digests = bytearray(_NONCE_BYTES * capacity)
        self._times = array("d", [-math.inf]) * capacity
        self._next = 0
        self._horizon = -math.inf

    def is_fresh(self, nonce: str, timestamp: float) -> bool:
        """Whether a request with this nonce and time cannot have been here before."""
        return timestamp > self._horizon and _nonce_digest(nonce) not in self._digests

    def remember(self, nonce: str, timestamp: float) -> None:
        """Keep a nonce whose request was accepted."""
        place, start = self._next, _NONCE_BYTES * self._next
        self._horizon = max(self._horizon, self._times[place])
        self._digests[start : start + _NONCE_BYTES] = _nonce_digest(nonce)
        self._times[place] = timestamp
        self._next = (place + 1) % len(self._times)


def _nonce_digest(nonce: str) -> bytes:
    return hashlib.blake2b(nonce.encode(), digest_size=_NONCE_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of its sender, in time and fresh, but not yet proven by its body."""

    site: str
    method: str
    target: str
    timestamp: str
    nonce: str
    signature: str


class Verifier:
    """Checks requests that reach one site, in two steps: a hopeless one is refused before its body is read.

    `window` is how far, in seconds, a sender's clock may be from ours. By `nonces_per_site` of its sender's later
    requests one may be overtaken on its way. Nonces live in memory only: within the window a request can be replayed
    once after a restart, which newest-wins slots make harmless.
    """

    def __init__(
        self,
        site: str,
        trust: Trust,
        clock: Clock = time.time,
        window: float = 300.0,
        nonces_per_site: int = 1024,
    ) -> None:
        self.site = site
        self._federation = trust.federation if isinstance(trust, Certified) else None
        self._secret = _secret(trust)
        self._clock = clock
        self._window = window
        self._nonces_per_site = nonces_per_site
        self._nonces: dict[str, NonceMemory] = {}

    def claim(
        self, method: str, target: str, headers: Mapping[str, str], certificate: PeerCertificate | None = None
    ) -> Claim:
        """Read the claim of a request that came over a connection with this `certificate`, if it had one.

        IdentityError if a header is missing, out of time or used before, or if the certificate does not bear it out;
        NotAllowed if that is of another federation.
        """
        site = _required(headers, SITE_HEADER)
        if self._federation is not None:
            self._check_certificate(certificate, self._federation, site)
        if self._secret is None:
            return Claim(site, method, target, "", "", "")
        claim = Claim(
            site,
            method,
            target,
            _required(headers, TIMESTAMP_HEADER),
            _required(headers, NONCE_HEADER),
            _required(headers, SIGNATURE_HEADER),
        )
        self._check_time(claim)
        return claim

    def confirm(self, claim: Claim, body_digest: str) -> None:
        """IdentityError unless the claim is new and was signed with the secret over a body of this digest."""
        if self._secret is None:
            return
        expected = _sign(
            self._secret,
            claim.method,
            claim.target,
            self.site,
            claim.site,
            claim.timestamp,
            claim.nonce,
            body_digest,
        )
        if not hmac.compare_digest(expected.encode(), claim.signature.encode()):
            raise IdentityError("the signature does not match the request")
        self._use_nonce(claim)

    def _check_certificate(self, certificate: PeerCertificate | None, federation: str, site: str) -> None:
        if certificate is None:
            raise IdentityError("the connection has no certificate")
        named = certified_site(certificate.uris, federation)
        if named != site:
            raise IdentityError(
                f"the header {SITE_HEADER} says {site[:64]!r}, but the certificate names {named[:64]!r}"
            )
        if self._clock() >= certificate.until:
            raise IdentityError("the certificate of this connection has expired")

    def _check_time(self, claim: Claim) -> None:
        skew = abs(_seconds(claim) - self._clock())
        if not skew <= self._window:
            raise IdentityError(
                f"signed {skew:.0f} s off this site's time, more than {self._window:.0f} s: check the clocks"
            )

    def _use_nonce(self, claim: Claim) -> None:
        memory = self._nonces.get(claim.site) or NonceMemory(self._nonces_per_site)
        timestamp = _seconds(claim)
        if not memory.is_fresh(claim.nonce, timestamp):
            raise IdentityError("this request was here before")
        memory.remember(claim.nonce, timestamp)
        self._nonces[claim.site] = memory


def _required(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise IdentityError(f"the header {name} is missing")
    return value


def _seconds(claim: Claim) -> float:
    try:
        return float(claim.timestamp)
    except ValueError as error:
        raise IdentityError(f"the header {TIMESTAMP_HEADER} is not a number of seconds") from error
