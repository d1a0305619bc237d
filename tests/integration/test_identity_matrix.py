"""Every kind of bad identity at every route of the exchange, by secret and by certificate; and what is open to all."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast

import httpx
import pytest

from certified import authority, context, issue, lay, now
from concord.apps import combined
from concord.apps.exchange import ExchangeSettings, create_exchange
from concord.apps.health import TrainerHealth
from concord.apps.inference import create_inference
from concord.apps.serve import Server, bind
from concord.certificates import Authority
from concord.mailbox.memory import MemoryMailbox
from concord.sealed import digest
from concord.settings import Secret
from concord.site.edges import NOTE_EDGES
from concord.site.ports import Box
from concord.transport.acceptance import TABLE_AGE
from concord.transport.identity import Certified, Signer
from concord.transport.tls import SiteTls
from exchange_sites import SECRET, TLS, Site, edge_table, eventually, exchange_site, publish, update_slot
from served_models import FragileShelf, marked_snapshot, new_predictor

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """As in production."""
    return "asyncio", {"use_uvloop": True}


@dataclass(frozen=True)
class Route:
    """One route for neighbours; `slot` is whose."""

    method: str
    folder: str

    def path(self, slot: str) -> str:
        return f"/v1/{self.folder}/{slot}"

    def body(self, sender: str) -> bytes:
        return update_slot(sender, "N1", 1).blob if self.method == "PUT" else b""


ROUTES = [Route("PUT", "inbox"), Route("GET", "outbox")]
by_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.folder)


def test_these_are_all_the_routes_for_neighbours() -> None:
    service = create_exchange(MemoryMailbox(), ExchangeSettings("N1", SECRET))
    served = {(method, route.path) for route in service.door.routes for method in route.methods}  # type: ignore[attr-defined]
    assert served == {
        (route.method, route.path("{sender}" if route.method == "PUT" else "{receiver}")) for route in ROUTES
    }


async def untouched(site: Site, answer: httpx.Response | None) -> None:
    """Nothing was stored, and nothing told."""
    for name in ("N2", "N3", "N9"):
        assert await site.mailbox.read(Box.INBOX, name) is None
    slot = await site.mailbox.read(Box.OUTBOX, "N2")
    assert slot is not None
    if answer is not None:
        assert len(answer.content) < 500
        assert slot.blob[:40] not in answer.content
        assert set(answer.json()) == {"reason", "detail"}


# --- by secret ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """A caller of the slot `slot` that says it is `name`."""

    status: int
    reason: str
    sign: Callable[[str, str, bytes], dict[str, str]]
    name: str = "N2"
    slot: str = "N2"


def signing(
    name: str = "N2", secret: Secret = SECRET, audience: str = "N1", ago: float = 0.0
) -> Callable[[str, str, bytes], dict[str, str]]:
    def sign(method: str, path: str, body: bytes) -> dict[str, str]:
        signer = Signer(name, secret, lambda: time.time() - ago)
        return signer.headers(audience, method, path, digest(body))

    return sign


def _for_other_bytes(method: str, path: str, body: bytes) -> dict[str, str]:
    return signing()(method, path, body + b"?")


def _for_the_other_route(method: str, path: str, body: bytes) -> dict[str, str]:
    other = {"PUT": "GET", "GET": "PUT"}[method]
    return signing()(other, path.replace("inbox", "?").replace("outbox", "inbox").replace("?", "outbox"), body)


SIGNED = {
    "no credentials": Bad(401, "identity", lambda *_: {}),
    "a name alone": Bad(401, "identity", lambda *_: {"concord-site": "N2"}),
    "another secret": Bad(401, "identity", signing(secret=Secret(b"the secret of another federation"))),
    "expired": Bad(401, "identity", signing(ago=301.0)),
    "of the future": Bad(401, "identity", signing(ago=-301.0)),
    "for another site": Bad(401, "identity", signing(audience="N4")),
    "for the other route": Bad(401, "identity", _for_the_other_route),
    "for other bytes": Bad(401, "identity", _for_other_bytes),
    "the slot of another": Bad(403, "not_allowed", signing("N3"), "N3", "N2"),
    "a stranger": Bad(403, "not_allowed", signing("N9"), "N9", "N9"),
}


@pytest.fixture
async def signed_site() -> AsyncIterator[Site]:
    async with exchange_site("N1", "N2", "N3") as site:
        await publish(site, "N2", 1)
        yield site


@by_route
@pytest.mark.parametrize("kind", SIGNED)
async def test_a_bad_signature_gets_nowhere(signed_site: Site, route: Route, kind: str) -> None:
    bad = SIGNED[kind]
    path, body = route.path(bad.slot), route.body(bad.name)
    async with httpx.AsyncClient(verify=TLS, trust_env=False) as client:
        headers = bad.sign(route.method, path, body)
        answer = await client.request(route.method, signed_site.url + path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (bad.status, bad.reason)
    assert signed_site.service.state.unproven == 1
    await untouched(signed_site, answer)


@by_route
async def test_a_replayed_request_gets_nowhere(signed_site: Site, route: Route) -> None:
    path, body = route.path("N2"), route.body("N2")
    headers = signing()(route.method, path, body)
    async with httpx.AsyncClient(verify=TLS, trust_env=False) as client:
        answers = [
            await client.request(route.method, signed_site.url + path, content=body, headers=headers) for _ in range(2)
        ]
    assert [answer.is_success for answer in answers] == [True, False]
    assert (answers[1].status_code, answers[1].json()["reason"]) == (401, "identity")
    assert signed_site.service.state.unproven == 1


# --- by certificate -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BadCertificate:
    """How a caller with the folder of a site is refused; `status` None: in the handshake."""

    status: int | None
    make: Callable[[Authority, Path], ssl.SSLContext]
    name: str = "N2"
    slot: str = "N2"


def _site(ca: Authority, folder: Path, name: str = "N2", **options: object) -> ssl.SSLContext:
    return context(lay(folder, issue(ca, name, **options)))  # type: ignore[arg-type]


def _revoked(ca: Authority, folder: Path) -> ssl.SSLContext:
    files = issue(ca, "N2")
    crl = folder.parent / "N1" / "ca.crl"
    crl.write_bytes(ca.revoke(files.certificate, None, now()))
    return context(lay(folder, files))


CERTIFIED = {
    "no credentials": BadCertificate(
        None, lambda ca, folder: context(lay(folder, issue(ca, "N2")), with_certificate=False)
    ),
    "another ca": BadCertificate(None, lambda ca, folder: _site(authority(), folder, trusting=ca.bundle)),
    "revoked": BadCertificate(None, _revoked),
    "expired": BadCertificate(None, lambda ca, folder: _site(ca, folder, ago=timedelta(days=2))),
    "another federation": BadCertificate(403, lambda ca, folder: _site(ca, folder, federation="other")),
    "another name": BadCertificate(401, lambda ca, folder: _site(ca, folder, "N3")),
    "the slot of another": BadCertificate(403, lambda ca, folder: _site(ca, folder, "N3"), "N3"),
    "a stranger": BadCertificate(403, lambda ca, folder: _site(ca, folder, "N9"), "N9", "N9"),
}


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority()


@pytest.fixture
async def certified_site(ca: Authority, tmp_path: Path) -> AsyncIterator[Site]:
    tls = SiteTls(lay(tmp_path / "N1", issue(ca, "N1")), "test", "N1")
    async with exchange_site("N1", "N2", "N3", trust=Certified("test"), tls=tls) as site:
        await publish(site, "N2", 1)
        yield site


@by_route
@pytest.mark.parametrize("kind", CERTIFIED)
async def test_a_bad_certificate_gets_nowhere(
    certified_site: Site, ca: Authority, tmp_path: Path, route: Route, kind: str
) -> None:
    bad, tls = CERTIFIED[kind], certified_site.service.tls
    assert tls is not None
    async with httpx.AsyncClient(verify=bad.make(ca, tmp_path / "caller"), trust_env=False) as client:
        request = client.request(
            route.method,
            certified_site.door + route.path(bad.slot),
            content=route.body(bad.name),
            headers={"concord-site": bad.name},
        )
        tls.look()
        if bad.status is None:
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                await request
            await eventually(lambda: tls.refused == 1)
            await untouched(certified_site, None)
        else:
            answer = await request
            assert answer.status_code == bad.status
            assert certified_site.service.state.unproven == 1
            await untouched(certified_site, answer)


@by_route
async def test_a_site_that_was_removed_is_refused_over_the_connection_that_it_has(
    certified_site: Site, ca: Authority, tmp_path: Path, route: Route
) -> None:
    async with httpx.AsyncClient(verify=_site(ca, tmp_path / "caller"), trust_env=False) as client:

        async def ask() -> httpx.Response:
            body, url = route.body("N2"), certified_site.door + route.path("N2")
            return await client.request(route.method, url, content=body, headers={"concord-site": "N2"})

        assert (await ask()).is_success
        await certified_site.mailbox.write_note(NOTE_EDGES, edge_table("N3").to_json())
        removed = time.monotonic()
        while (answer := await ask()).is_success:
            assert time.monotonic() - removed < TABLE_AGE + 0.5
        assert (answer.status_code, answer.json()["reason"]) == (403, "not_allowed")
        assert certified_site.service.state.unproven == 1


# --- what is open to all ------------------------------------------------------------------------------------------


class _Healthy:
    """A trainer that says it is well."""

    async def started(self, _: object) -> object:
        return httpx.Response(200)


@pytest.fixture
async def whole_site() -> AsyncIterator[tuple[str, MemoryMailbox]]:
    """All routes in one app, as `concord site` serves them."""
    mailbox, shelf = MemoryMailbox(), FragileShelf()
    await mailbox.write_note(NOTE_EDGES, edge_table("N2").to_json())
    await mailbox.put(Box.OUTBOX, "N2", update_slot("N1", "N2", 1))
    await shelf.publish(marked_snapshot(1))
    exchange = create_exchange(mailbox, ExchangeSettings("N1", SECRET))
    inference = create_inference(new_predictor(), shelf)
    app = combined.create_app(exchange, inference, cast(TrainerHealth, _Healthy()))
    server = Server(app, bind("127.0.0.1", 0), exchange.release)
    async with server.running():
        await eventually(lambda: inference.predictor.served is not None)
        yield server.url, mailbox


OPEN = [
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/animals",
    "/v2/models/animals/ready",
    "/v2/models/animals/versions/1",
    "/v2/models/animals/versions/1/ready",
    "/v1/models",
    "/v1/status",
    "/readyz",
    "/metrics",
]


async def test_what_is_open_to_all_tells_no_update_and_writes_nothing(whole_site: tuple[str, MemoryMailbox]) -> None:
    url, mailbox = whole_site
    slot = await mailbox.read(Box.OUTBOX, "N2")
    assert slot is not None
    async with httpx.AsyncClient(trust_env=False, verify=TLS) as client:
        for path in OPEN:
            answer = await client.get(url + path, headers={"concord-site": "N2"})
            assert answer.status_code == 200, path
            assert slot.blob[:40] not in answer.content
            assert SECRET.value not in answer.content
            for method in ("PUT", "POST", "PATCH", "DELETE"):
                refused = await client.request(method, url + path, content=slot.blob, headers={"concord-site": "N2"})
                assert refused.status_code == 405, (method, path)
        for path in ("/v1/predict", "/v2/models/animals/infer", "/v2/models/animals/versions/1/infer"):
            for body in (slot.blob, b"", b"{}", json.dumps({"inputs": "N2"}).encode()):
                assert (await client.post(url + path, content=body)).status_code in (400, 422)
        for path in ("/v1/inbox", "/v1/inbox/", "/v1/inbox/N2/", "/v1/outbox/N2/..", "//v1/outbox/N2", "/v1/Outbox/N2"):
            for method in ("GET", "PUT"):
                answer = await client.request(method, url + path, follow_redirects=False)
                assert answer.status_code in (307, 401, 404, 405), path
                assert slot.blob[:40] not in answer.content
    assert await mailbox.read(Box.INBOX, "N2") is None
    assert await mailbox.read(Box.OUTBOX, "N2") == slot
