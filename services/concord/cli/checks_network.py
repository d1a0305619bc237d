"""What `concord doctor` looks at around the machine: Redis, ports, neighbours, the secret."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from concord.cli.findings import Finding, Level, Patient
from concord.errors import CertificateError, EnvironmentProblem, MailboxError
from concord.identities import uri_parts
from concord.transport.material import date, load
from concord.transport.tls import SiteTls

TOLERATED_SKEW = 60.0
"""Seconds two clocks may differ before it is worth a word."""
GREATEST_SKEW = 300.0
"""Seconds beyond which sites refuse each other's signatures."""
_SOON = 7 * 24 * 3600.0
"""Seconds before its end when a certificate should have been renewed."""
_PATIENCE = 3.0
"""Seconds another machine has to answer."""


def check_redis(patient: Patient) -> Iterator[Finding]:
    """The Redis that is configured answers; or the embedded server, for `up`, starts."""
    if "CONCORD_REDIS_URL" in patient.environment:
        yield from _check_redis_url(patient.settings.redis_url)
    else:
        yield from _check_embedded_redis()


def _check_redis_url(url: str) -> Iterator[Finding]:
    from concord.mailbox.redis import RedisMailbox

    async def look() -> None:
        mailbox = RedisMailbox(url, "doctor", "doctor")
        try:
            await mailbox.read_note("doctor")
        finally:
            await mailbox.close()

    try:
        asyncio.run(asyncio.wait_for(look(), _PATIENCE))
    except (MailboxError, TimeoutError, ValueError) as error:
        found = f"{without_password(url)} does not answer: {error or 'time-out'}"
        yield Finding(Level.FAIL, "redis", found, "start it, or correct CONCORD_REDIS_URL")
    else:
        yield Finding(Level.OK, "redis", f"{without_password(url)} answers")


def _check_embedded_redis() -> Iterator[Finding]:
    from concord.mailbox.server import EmbeddedServer

    try:
        with tempfile.TemporaryDirectory(prefix="concord-") as folder:
            server = EmbeddedServer(Path(folder))
            server.start()
            server.stop()
    except EnvironmentProblem as error:
        remedy = "pip install 'concord-edge[local]', or set CONCORD_REDIS_URL"
        yield Finding(Level.FAIL, "redis", str(error), remedy)
    else:
        yield Finding(Level.OK, "redis", "the embedded server starts and answers")


def check_ports(patient: Patient) -> Iterator[Finding]:
    """The ports that `up` (or, without a job, one process) would listen on are free."""
    if patient.job is None:
        ports = [patient.settings.port]
    else:
        ports = [patient.base_port + index for index in range(len(patient.job.sites))]
    taken = [port for port in ports if not _is_free(patient.settings.host, port)]
    span = str(ports[0]) if len(ports) == 1 else f"{ports[0]} to {ports[-1]}"
    if taken:
        found = f"in use: {', '.join(map(str, taken))}"
        remedy = "stop what listens there, or choose others with --base-port"
        yield Finding(Level.FAIL, "ports", found, remedy)
    else:
        yield Finding(Level.OK, "ports", f"{span} free on {patient.settings.host}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True


def check_peers(patient: Patient) -> Iterator[Finding]:
    """Each configured neighbour can be called, is safe to call, and its clock agrees with ours."""
    for name, url in patient.settings.peers.items():
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            remedy = "give it an https:// address: updates are signed, but anyone on the way can read them"
            yield Finding(Level.WARN, f"peer {name}", f"{url} is not encrypted", remedy)
        yield _peer(name, url, patient)


def _peer(name: str, url: str, patient: Patient) -> Finding:
    subject = f"peer {name}"
    try:
        answer = asyncio.run(_call(url, _trust(name, patient)))
        skew = time.time() - parsedate_to_datetime(answer.headers["date"]).timestamp()
    except httpx.HTTPError as error:
        remedy = "training goes on without it; check the address, the network and its certificate"
        return Finding(Level.WARN, subject, f"{url} cannot be reached: {error}", remedy)
    except CertificateError:
        return Finding(Level.WARN, subject, f"{url} was not called", "mend this site's certificates first")
    except (KeyError, ValueError):
        return Finding(Level.OK, subject, f"{url} answers, and does not tell its time")
    found = f"{url} answers; clocks differ by {abs(skew):.0f} s"
    if abs(skew) <= TOLERATED_SKEW:
        return Finding(Level.OK, subject, found)
    level = Level.FAIL if abs(skew) > GREATEST_SKEW else Level.WARN
    return Finding(level, subject, found, "set both clocks by NTP: signatures are refused when 300 s apart")


def _trust(name: str, patient: Patient) -> ssl.SSLContext | bool:
    """How the neighbour `name` is known: by the certificates of this site, if it has some."""
    tls = _site_tls(patient)
    return True if tls is None else tls.towards(name)


def _site_tls(patient: Patient) -> SiteTls | None:
    if patient.settings.tls_dir is None:
        return None
    facts = load(patient.settings.tls_dir, _federation(patient), patient.settings.site or None, time.time()).facts
    federation, site = uri_parts(facts.uris[0])
    return SiteTls(patient.settings.tls_dir, federation, site)


def _federation(patient: Patient) -> str | None:
    return None if patient.job is None else patient.job.name


async def _call(url: str, verify: ssl.SSLContext | bool) -> httpx.Response:
    async with httpx.AsyncClient(verify=verify, timeout=_PATIENCE) as client:
        return await client.get(f"{url}/healthz")


def check_certificates(patient: Patient) -> Iterator[Finding]:
    """The certificates of a site that has some can be used, as far as one can tell at this end."""
    folder = patient.settings.tls_dir
    if folder is None:
        return
    try:
        tls = _site_tls(patient)
    except CertificateError as error:
        yield Finding(Level.FAIL, "certificates", str(error), "concord certs issue, or look at what renews them")
        return
    if tls is not None:
        found = f"{folder}: {tls.facts.uris[0]}, by {tls.facts.issuer}, until {date(tls.facts.until)}"
        soon = tls.facts.until - time.time() < _SOON
        yield Finding(Level.WARN if soon else Level.OK, "certificates", found, "renew them" if soon else "")


def check_secret(patient: Patient) -> Iterator[Finding]:
    """Sites that run on their own have a secret, or certificates; `up` makes a secret by itself."""
    settings = patient.settings
    if settings.insecure and settings.tls_dir is not None:
        remedy = "unset CONCORD_INSECURE, or CONCORD_TLS_DIR"
        yield Finding(Level.FAIL, "secret", "certificates and CONCORD_INSECURE contradict each other", remedy)
    elif settings.insecure:
        remedy = "use a secret unless you trust everyone on the network"
        yield Finding(Level.WARN, "secret", "CONCORD_INSECURE: callers are believed without proof", remedy)
    elif settings.secret is not None:
        yield Finding(Level.OK, "secret", f"set, {len(settings.secret.value)} bytes")
    elif settings.tls_dir is not None:
        yield Finding(Level.OK, "secret", "not set: certificates do without")
    elif settings.site or settings.peers:
        remedy = "put `openssl rand -hex 32` in a file for all sites and set CONCORD_SECRET_FILE, or CONCORD_TLS_DIR"
        yield Finding(Level.FAIL, "secret", "not set: the exchange will not start", remedy)
    else:
        yield Finding(Level.OK, "secret", "not set; `up` makes one for each run")


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":...@", 1)
