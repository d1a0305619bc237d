"""A site's certificate, key and CAs as read from a folder, checked as far as one end alone can check them.

The folder is laid out like a kubernetes.io/tls Secret. To see the certificate as neighbours will, it is presented to
itself in memory, from both sides: what passes here passes there. Standard library only.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concord.errors import CertificateError, IdentityError
from concord.identities import site_uri, uri_parts

CERTIFICATE, KEY, AUTHORITIES = FILES = ("tls.crt", "tls.key", "ca.crt")

REVOKED = "ca.crl"
"""The file that may be there: which certificates count no more, as a CRL of every CA in `ca.crt`."""
_ANY_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL: dates are checked here, where the message can say them."""
_SHOULD_BE = {
    **dict.fromkeys((3, 8), f"{REVOKED} must hold a list of every CA in {AUTHORITIES}"),
    23: f"{REVOKED} names it, so the site needs another one",
}
"""What would be right, by OpenSSL's X509_V_ERR_UNABLE_TO_GET_CRL, _CRL_SIGNATURE_FAILURE and _CERT_REVOKED."""
_ATTEMPTS = 3
_FLIGHTS = 4
"""Turns that both ends of a handshake take at most."""

Mark = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself; times in seconds since the Unix epoch."""

    uris: tuple[str, ...]
    hosts: tuple[str, ...]
    issuer: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Material:
    """Contexts for new connections to this site (`server`) and from it (`client`), and what they present."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    facts: Facts
    mark: Mark
    content: tuple[bytes, ...]


def mark(folder: Path) -> Mark | None:
    """Which files are there now, as the file system tells it, links followed; None if one of the three is missing."""
    try:
        stats = [os.stat(folder / name) for name in FILES]
    except OSError:
        return None
    with suppress(OSError):
        stats.append(os.stat(folder / REVOKED))
    return tuple((stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def read(folder: Path) -> tuple[bytes, ...]:
    """The content of the files; CertificateError says which is not there or cannot be read."""
    names = (*FILES, REVOKED) if (folder / REVOKED).exists() else FILES
    return tuple(_read(folder / name) for name in names)


def load(folder: Path, federation: str | None, site: str | None, now: float) -> Material:
    """Read and check a folder; `federation` and `site` are whose it must be (None: anyone's).

    CertificateError names the file that cannot be used and says what would be right. The files may be replaced
    meanwhile; what is returned is of one state of them.
    """
    for _ in range(_ATTEMPTS):
        before = mark(folder)
        content = read(folder)
        try:
            server, client = _contexts(folder)
            facts = _facts(folder)
        finally:
            changed = mark(folder) != before
        if before is not None and not changed:
            _check_names(folder, facts, federation, site)
            _check_times(folder, facts, now)
            return Material(server, client, facts, before, content)
    raise CertificateError(f"the files in {folder} change while they are read; leave them alone for a moment")


def facts_of(certificate: Mapping[str, Any]) -> Facts:
    """From the form in which `ssl` gives a certificate that it verified."""
    names: tuple[tuple[str, str], ...] = certificate.get("subjectAltName", ())
    issuer = [value for part in certificate.get("issuer", ()) for key, value in part if key == "commonName"]
    return Facts(
        uris=tuple(value for kind, value in names if kind == "URI"),
        hosts=tuple(value for kind, value in names if kind in ("DNS", "IP Address")),
        issuer=issuer[0] if issuer else "(no name)",
        since=ssl.cert_time_to_seconds(certificate["notBefore"]),
        until=ssl.cert_time_to_seconds(certificate["notAfter"]),
    )


def date(seconds: float) -> str:
    """A time for a person, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        needed = ", ".join(FILES)
        raise CertificateError(f"{path} is missing; a folder of certificates holds {needed}") from error
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
    if not content.strip():
        raise CertificateError(f"{path} is empty")
    return content


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        # Whoever resumed a session would not be asked for a certificate again, however old the session is.
        context.options |= ssl.OP_NO_TICKET
        _load_files(context, folder)
    server.num_tickets = 0
    return server, client


def _load_files(context: ssl.SSLContext, folder: Path) -> None:
    certificate, key, authorities = (folder / name for name in FILES)
    for path in (certificate, authorities):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(f"{path} does not hold certificates in PEM form") from error
    context.load_verify_locations(authorities)
    if (folder / REVOKED).exists():
        _load_revoked(context, folder / REVOKED)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise CertificateError(f"{key} is not the key of {certificate}; replace both together") from error
        raise CertificateError(f"{key} does not hold a private key in PEM form without a password") from error


def _load_revoked(context: ssl.SSLContext, path: Path) -> None:
    before = context.cert_store_stats()["crl"]
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(f"{path} does not hold a CRL in PEM form") from error
    if context.cert_store_stats()["crl"] == before:
        raise CertificateError(f"{path} does not hold a CRL in PEM form")
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _no_password() -> str:
    # Without this OpenSSL would ask at the terminal, and a process would hang.
    return ""


def _facts(folder: Path) -> Facts:
    try:
        return facts_of(_introduce(folder, _ANY_TIME))
    except ssl.SSLCertVerificationError as error:
        certificate, _, authorities = (folder / name for name in FILES)
        should_be = _SHOULD_BE.get(
            error.verify_code, "it must be signed by a CA in there, for use as a server and as a client"
        )
        raise CertificateError(
            f"{certificate} would not be accepted by neighbours that have {authorities}: {error.verify_message}; "
            f"{should_be}"
        ) from error
    except ssl.SSLError as error:
        raise CertificateError(f"{folder / CERTIFICATE} cannot be used for TLS: {error}") from error


def _check_names(folder: Path, facts: Facts, federation: str | None, site: str | None) -> None:
    path = folder / CERTIFICATE
    wanted = site_uri(federation or "<federation>", site or "<site>")
    found = ", ".join(facts.uris) or "no URI"
    problem = CertificateError(f"{path} names {found}; it should name {wanted}")
    if len(facts.uris) != 1:
        raise problem
    try:
        named, of = uri_parts(facts.uris[0])
    except IdentityError as error:
        raise problem from error
    if named != (federation or named) or of != (site or of):
        raise problem


def _check_times(folder: Path, facts: Facts, now: float) -> None:
    path = folder / CERTIFICATE
    if now < facts.since:
        raise CertificateError(f"{path} is valid from {date(facts.since)} only, and here it is {date(now)}")
    if now >= facts.until:
        raise CertificateError(f"{path} has expired at {date(facts.until)}, and here it is {date(now)}; renew it")
    try:
        _introduce(folder, ssl.VerifyFlags.VERIFY_DEFAULT)
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(f"the CA in {folder / AUTHORITIES} cannot be used: {error.verify_message}") from error


def _introduce(folder: Path, flags: ssl.VerifyFlags) -> Mapping[str, Any]:
    """A handshake of the folder with itself, which verifies the certificate as a server's and as a client's."""
    server, client = _contexts(folder)
    client.check_hostname = False
    for context in (server, client):
        context.verify_flags |= flags
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(_FLIGHTS):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].getpeercert() or {}
