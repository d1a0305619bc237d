"""Exchanges over mutual TLS on loopback: updates that pass, all that is refused, and certificates that change."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from certified import authority, context, issue, lay, now
from concord.certificates import Authority, SiteFiles, Wanted
from concord.errors import TransportError
from concord.sealed import digest
from concord.settings import Secret
from concord.site.ports import Box, Slot
from concord.transport.http import Delivered, NeighbourClient, Refusal
from concord.transport.identity import Certified, Signer
from concord.transport.lane import EdgeRoute
from concord.transport.tls import SiteTls
from exchange_sites import SECRET, Site, eventually, exchange_site, free_port, publish, received, update_slot

pytestmark = pytest.mark.anyio

TRUST = Certified("test")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """As in production: TLS is done by another piece of code in uvloop than in asyncio."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority()


@pytest.fixture
def folder(tmp_path: Path, ca: Authority) -> Callable[..., Path]:
    """Makes the folder of a site."""

    def make(name: str, files: SiteFiles | None = None) -> Path:
        return lay(tmp_path / name, files or issue(ca, name))

    return make


@asynccontextmanager
async def tls_site(folder: Path, name: str, *neighbours: str, **options: object) -> AsyncIterator[Site]:
    tls = SiteTls(folder, "test", name)
    options = {"trust": TRUST, **options}
    async with exchange_site(name, *neighbours, tls=tls, **options) as site:  # type: ignore[arg-type]
        yield site


@pytest.fixture
async def site(folder: Callable[..., Path]) -> AsyncIterator[Site]:
    async with tls_site(folder("N1"), "N1", "N2", "N3") as site:
        yield site


async def put(
    site: Site, tls: ssl.SSLContext, slot: Slot | None = None, *, name: str = "N2", sender: str | None = None
) -> httpx.Response:
    """One push by a caller that says it is `name`, to the slot of `sender`."""
    async with httpx.AsyncClient(verify=tls, trust_env=False) as client:
        return await client.put(
            f"{site.door}/v1/inbox/{sender or name}",
            content=(slot or update_slot(name, site.name, 1)).blob,
            headers={"concord-site": name},
        )


# --- what passes ------------------------------------------------------------------------------------------------


async def test_two_sites_push_to_each_other(folder: Callable[..., Path]) -> None:
    port = free_port()
    to_one = EdgeRoute("N1", f"https://127.0.0.1:{port}", push=True, pull=False)
    async with tls_site(folder("N2"), "N2", "N1", routes=(to_one,)) as two:
        to_two = EdgeRoute("N2", two.door, push=True, pull=False)
        async with tls_site(folder("N1"), "N1", "N2", routes=(to_two,), door_port=port) as one:
            theirs, ours = await publish(one, "N2", 7), await publish(two, "N1", 9)
            assert await received(two, "N1", theirs.stamp) == theirs
            assert await received(one, "N2", ours.stamp) == ours
            await eventually(lambda: one.service.state.edges["N2"].sent == 1)


async def test_a_site_pulls_from_another_and_the_secret_is_checked_as_well(folder: Callable[..., Path]) -> None:
    trust = Certified("test", SECRET)
    async with tls_site(folder("N1"), "N1", "N2", trust=trust) as one:
        route = EdgeRoute("N1", one.door, push=False, pull=True)
        async with tls_site(folder("N2"), "N2", "N1", trust=trust, routes=(route,)) as two:
            slot = await publish(one, "N2", 3)
            assert await received(two, "N1", slot.stamp) == slot
        unsigned = await put(one, context(folder("N2")))
        assert (unsigned.status_code, one.service.state.unproven) == (401, 1)
        client = NeighbourClient(
            Signer("N2", Certified("test", Secret(b"another secret than theirs"))),
            2.0,
            SiteTls(folder("N2"), "test", "N2"),
        )
        answer = await client.push(one.door, "N1", update_slot("N2", "N1", 1))
        assert isinstance(answer, Refusal)
        assert answer.status == 401
        await client.close()


async def test_a_caller_of_another_make_is_let_in(site: Site, folder: Callable[..., Path]) -> None:
    slot = update_slot("N2", "N1", 5)
    assert (await put(site, context(folder("N2")), slot)).status_code == 204
    assert await site.mailbox.read(Box.INBOX, "N2") == slot


async def test_four_megabytes_pass(folder: Callable[..., Path]) -> None:
    async with tls_site(folder("N1"), "N1", "N2", size=1_000_000) as site:
        slot = update_slot("N2", "N1", 1, size=1_000_000)
        assert (await put(site, context(folder("N2")), slot)).status_code == 204


async def test_the_plain_port_has_no_inbox_and_the_door_has_nothing_else(
    site: Site, folder: Callable[..., Path]
) -> None:
    async with httpx.AsyncClient(verify=context(folder("N2")), trust_env=False) as client:
        headers = {"concord-site": "N2"}
        for path, method in (("/v1/inbox/N2", "PUT"), ("/v1/outbox/N2", "GET")):
            assert (await client.request(method, site.url + path, headers=headers)).status_code == 404
        assert (await client.get(f"{site.url}/healthz")).status_code == 200
        status = (await client.get(f"{site.url}/v1/status")).json()["exchange"]["tls"]
        assert (status["issuer"], status["problem"], status["renewals"]) == ("test CA", None, 0)
        for path in ("/v1/status", "/healthz", "/readyz", "/metrics"):
            assert (await client.get(site.door + path)).status_code == 404


# --- what is refused before a request ---------------------------------------------------------------------------


async def test_plain_http_is_not_understood_at_the_door(site: Site) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.put(site.door.replace("https", "http") + "/v1/inbox/N2", headers={"concord-site": "N2"})
    await eventually(lambda: site.service.tls is not None and site.service.tls.refused == 1)


async def test_without_a_certificate_nobody_is_let_in(site: Site, folder: Callable[..., Path]) -> None:
    await refused_at_the_door(site, context(folder("N2"), with_certificate=False))


async def test_the_certificate_of_another_ca_is_refused(site: Site, folder: Callable[..., Path], ca: Authority) -> None:
    await refused_at_the_door(site, context(folder("N2", issue(authority(), "N2", trusting=ca.bundle))))


async def test_an_expired_certificate_is_refused(site: Site, folder: Callable[..., Path], ca: Authority) -> None:
    await refused_at_the_door(site, context(folder("N2", issue(ca, "N2", ago=timedelta(days=2)))))


async def refused_at_the_door(site: Site, tls: ssl.SSLContext) -> None:
    # The client of TLS 1.3 believes that it is in until it reads: what it meets then is an error of `ssl` or of httpx.
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        await put(site, tls)
    assert await site.mailbox.read(Box.INBOX, "N2") is None
    assert site.service.tls is not None
    assert site.service.tls.refused == 1


# --- what is refused for whom it is from ------------------------------------------------------------------------


async def test_another_federation_is_refused(site: Site, folder: Callable[..., Path], ca: Authority) -> None:
    answer = await put(site, context(folder("N2", issue(ca, "N2", federation="other"))))
    assert (answer.status_code, answer.json()["reason"]) == (403, "not_allowed")
    assert "spiffe://other/site/N2" in answer.json()["detail"]
    assert site.service.state.unproven == 1


async def test_another_name_in_the_header_is_not_believed(site: Site, folder: Callable[..., Path]) -> None:
    answer = await put(site, context(folder("N3")), name="N2")
    assert (answer.status_code, answer.json()["reason"]) == (401, "identity")
    assert "'N2', but the certificate names 'N3'" in answer.json()["detail"]
    assert await site.mailbox.read(Box.INBOX, "N2") is None
    assert site.service.state.unproven == 1


async def test_the_slot_of_another_is_not_for_it(site: Site, folder: Callable[..., Path]) -> None:
    answer = await put(site, context(folder("N3")), update_slot("N2", "N1", 1), name="N3", sender="N2")
    assert (answer.status_code, answer.json()["reason"]) == (403, "not_allowed")
    assert await site.mailbox.read(Box.INBOX, "N2") is None


async def test_a_stranger_of_the_same_federation_is_turned_away(site: Site, folder: Callable[..., Path]) -> None:
    answer = await put(site, context(folder("N9")), name="N9")
    assert (answer.status_code, answer.json()["reason"]) == (403, "not_allowed")
    assert site.service.state.unproven == 1


async def test_a_request_that_does_not_say_from_whom_it_is_is_refused(site: Site, folder: Callable[..., Path]) -> None:
    async with httpx.AsyncClient(verify=context(folder("N2")), trust_env=False) as client:
        answer = await client.get(f"{site.door}/v1/outbox/N2")
    assert (answer.status_code, answer.json()["detail"]) == (401, "the header concord-site is missing")


# --- the calling side -------------------------------------------------------------------------------------------


@dataclass
class Recorder:
    """A server that answers every request with 204, and remembers what came over which certificate."""

    url: str = ""
    serials: list[str] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    gone: int = 0


@asynccontextmanager
async def recorder(tls: ssl.SSLContext) -> AsyncIterator[Recorder]:
    made = Recorder()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.serials.append((writer.get_extra_info("peercert") or {}).get("serialNumber", ""))
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                made.heard.append(head)
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            made.gone += 1
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        made.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made


@asynccontextmanager
async def calling(tls: SiteTls) -> AsyncIterator[NeighbourClient]:
    client = NeighbourClient(Signer(tls.site, TRUST), 2.0, tls)
    try:
        yield client
    finally:
        await client.close()


SLOT = update_slot("N1", "N2", 5)


async def test_a_server_that_is_another_site_is_told_nothing(folder: Callable[..., Path]) -> None:
    tls = SiteTls(folder("N1"), "test", "N1")
    other = SiteTls(folder("N3"), "test", "N3").server
    async with recorder(other) as server, calling(tls) as client:
        with pytest.raises(TransportError, match=r"N2 at 127.0.0.1:\d+: .*site/N3, not spiffe://test/site/N2"):
            await client.push(server.url, "N2", SLOT)
        assert await client.push(server.url, "N3", SLOT) == Delivered(SLOT.stamp)
        with pytest.raises(TransportError, match="site/N3, not"):
            await client.push(server.url, "N2", SLOT)  # nor is it over the connection that is open to N3 now
        assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("federation", "message"), [("other", "names spiffe://other/site/N2; this is the federation test")]
)
async def test_a_server_of_another_federation_is_told_nothing(
    folder: Callable[..., Path], ca: Authority, federation: str, message: str
) -> None:
    files = folder("N2", issue(ca, "N2", federation=federation))
    server_context = SiteTls(files, federation, "N2").server
    async with recorder(server_context) as server, calling(SiteTls(folder("N1"), "test", "N1")) as client:
        with pytest.raises(TransportError, match=message):
            await client.push(server.url, "N2", SLOT)
        assert server.heard == []


async def test_a_server_whose_host_name_is_another_is_told_nothing(folder: Callable[..., Path], ca: Authority) -> None:
    files = folder("N2", ca.issue(Wanted("test", "N2", ("localhost",)), 1, now()))
    async with recorder(SiteTls(files, "test", "N2").server) as server:
        async with calling(SiteTls(folder("N1"), "test", "N1")) as client:
            by_name = server.url.replace("127.0.0.1", "localhost")
            assert await client.push(by_name, "N2", SLOT) == Delivered(SLOT.stamp)
            with pytest.raises(TransportError, match="IP address mismatch"):
                await client.push(server.url, "N2", SLOT)
        assert len(server.heard) == 1


async def test_a_server_of_another_ca_is_told_nothing(folder: Callable[..., Path], ca: Authority) -> None:
    foreign = authority()
    files = issue(foreign, "N2", trusting=foreign.bundle + ca.bundle)
    async with recorder(SiteTls(folder("N2", files), "test", "N2").server) as server:
        async with calling(SiteTls(folder("N1"), "test", "N1")) as client:
            with pytest.raises(TransportError, match="certificate verify failed"):
                await client.push(server.url, "N2", SLOT)
        assert server.heard == []


async def test_a_caller_whose_certificate_is_refused_is_not_surprised(
    site: Site, folder: Callable[..., Path], ca: Authority
) -> None:
    foreign = authority()
    tls = SiteTls(folder("N2", issue(foreign, "N2", trusting=foreign.bundle + ca.bundle)), "test", "N2")
    async with calling(tls) as client:
        for size in (8, 1_000_000):
            with pytest.raises(TransportError, match=r"N1 at 127\.0\.0\.1"):
                await client.push(site.door, "N1", update_slot("N2", "N1", 1, size=size))
            with pytest.raises(TransportError, match=r"N1 at 127\.0\.0\.1"):
                await client.pull(site.door, "N1", None, 0.0, 1000)


async def test_a_refusal_of_the_certificate_that_comes_late_is_told(folder: Callable[..., Path], ca: Authority) -> None:
    foreign = authority()
    files = folder("N1", issue(foreign, "N1", trusting=foreign.bundle + ca.bundle))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder("N2") / "tls.crt", folder("N2") / "tls.key")
    server.load_verify_locations(folder("N2") / "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = asyncio.create_task(asyncio.to_thread(_refuse, listener, server))
        async with calling(SiteTls(files, "test", "N1")) as client:
            with pytest.raises(TransportError, match="unknown ca"):
                await client.push(f"https://127.0.0.1:{listener.getsockname()[1]}", "N2", SLOT)
        await refusing


def _refuse(listener: socket.socket, server: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    wrapped = server.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        wrapped.do_handshake()
    with socket.socket(fileno=wrapped.detach()) as plain:
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(1 << 16):  # to close with something unread would reset the connection, and lose the reason
            pass


async def test_with_certificates_no_plain_address_is_called(folder: Callable[..., Path]) -> None:
    async with calling(SiteTls(folder("N1"), "test", "N1")) as client:
        with pytest.raises(TransportError, match="https:// addresses only"):
            await client.push("http://127.0.0.1:9", "N2", SLOT)


async def test_new_connections_carry_the_new_certificate_and_old_ones_end(
    folder: Callable[..., Path], ca: Authority
) -> None:
    files = folder("N1")
    tls = SiteTls(files, "test", "N1")
    async with recorder(SiteTls(folder("N2"), "test", "N2").server) as server, calling(tls) as client:
        for _ in range(2):
            await client.push(server.url, "N2", SLOT)
        assert len(server.serials) == 1
        lay(files, issue(ca, "N1"))
        assert tls.look()
        await client.push(server.url, "N2", SLOT)
        assert len(set(server.serials)) == 2
        await eventually(lambda: server.gone == 1)
        assert len(server.heard) == 3


# --- certificates that change under a running server ------------------------------------------------------------


async def connect(site: Site, tls: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """An idle connection to the door, and the serial number of what the door presented."""
    url = httpx.URL(site.door)
    reader, writer = await asyncio.open_connection(url.host, url.port, ssl=tls)
    return reader, writer, writer.get_extra_info("peercert")["serialNumber"]


async def renewed(site: Site, times: int) -> None:
    tls = site.service.tls
    assert tls is not None
    await eventually(lambda: tls.generation == times)


async def test_a_renewed_certificate_is_presented_without_a_restart(folder: Callable[..., Path], ca: Authority) -> None:
    files, caller = folder("N1"), context(folder("N2"))
    async with tls_site(files, "N1", "N2") as site:
        reader, writer, before = await connect(site, caller)
        lay(files, issue(ca, "N1"))
        assert await asyncio.wait_for(reader.read(), 5.0) == b""
        writer.close()
        _, other, after = await connect(site, caller)
        other.close()
        assert before != after
        assert (await put(site, caller)).status_code == 204
        await renewed(site, 1)


async def test_a_request_under_way_is_answered_while_certificates_change(
    folder: Callable[..., Path], ca: Authority
) -> None:
    files = folder("N1")
    async with (
        tls_site(files, "N1", "N2") as site,
        httpx.AsyncClient(verify=context(folder("N2")), trust_env=False, timeout=10.0) as client,
    ):
        url, headers = f"{site.door}/v1/outbox/N2", {"concord-site": "N2"}
        pull = asyncio.create_task(client.get(url, params={"wait": 20, "after": "1.1.1"}, headers=headers))
        await eventually(lambda: site.service.state.edges["N2"].delivered is not None)
        idle, writer, _ = await connect(site, context(folder("N2")))
        lay(files, issue(ca, "N1"))
        assert await asyncio.wait_for(idle.read(), 5.0) == b""
        writer.close()
        slot = await publish(site, "N2", 2)
        answer = await pull
        assert (answer.content, answer.headers["connection"]) == (slot.blob, "close")


async def test_a_ca_is_changed_by_way_of_a_bundle(folder: Callable[..., Path], ca: Authority) -> None:
    coming = authority()
    both = coming.bundle + ca.bundle
    files = folder("N1")
    old = context(folder("N2", issue(ca, "N2", trusting=both)))
    new = context(folder("N3", issue(coming, "N3", trusting=both)))
    async with tls_site(files, "N1", "N2", "N3") as site:
        assert (await put(site, old)).status_code == 204
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await put(site, new, name="N3")
        (files / "ca.crt").write_bytes(both)
        await renewed(site, 1)
        assert (await put(site, old)).status_code == 200
        assert (await put(site, new, name="N3")).status_code == 204
        reader, writer, _ = await connect(site, old)
        lay(files, issue(coming, "N1", trusting=coming.bundle))
        assert await asyncio.wait_for(reader.read(), 5.0) == b""
        writer.close()
        await renewed(site, 2)
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await put(site, old)
        assert (await put(site, new, name="N3")).status_code == 200


async def test_who_was_still_shaking_hands_when_the_ca_changed_is_not_let_in(
    folder: Callable[..., Path], ca: Authority
) -> None:
    coming = authority()
    files = folder("N1")
    caller = context(folder("N2", issue(ca, "N2", trusting=coming.bundle + ca.bundle)))
    async with tls_site(files, "N1", "N2") as site:
        url = httpx.URL(site.door)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        accepted, other, _ = await connect(site, caller)  # so the one before has been accepted
        lay(files, issue(coming, "N1", trusting=coming.bundle))
        await renewed(site, 1)
        assert await accepted.read() == b""
        other.close()
        await writer.start_tls(caller, server_hostname="127.0.0.1")
        assert await asyncio.wait_for(reader.read(), 5.0) == b""
        writer.close()


async def test_a_broken_replacement_is_not_taken(folder: Callable[..., Path], ca: Authority) -> None:
    files, caller = folder("N1"), context(folder("N2"))
    async with tls_site(files, "N1", "N2") as site:
        tls = site.service.tls
        assert tls is not None
        (files / "tls.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nhalf of ")
        await eventually(lambda: tls.to_dict()["problem"] is not None)
        assert (await put(site, caller)).status_code == 204
        assert tls.generation == 0


async def test_signed_requests_to_the_door_prove_nothing_without_the_right_certificate(
    folder: Callable[..., Path],
) -> None:
    async with tls_site(folder("N1"), "N1", "N2", trust=Certified("test", SECRET)) as site:
        body = update_slot("N2", "N1", 1).blob
        headers = Signer("N2", SECRET).headers("N1", "PUT", "/v1/inbox/N2", digest(body))
        async with httpx.AsyncClient(verify=context(folder("N3")), trust_env=False) as client:
            answer = await client.put(f"{site.door}/v1/inbox/N2", content=body, headers=headers)
        assert answer.status_code == 401
        async with httpx.AsyncClient(verify=context(folder("N2")), trust_env=False) as client:
            answer = await client.put(f"{site.door}/v1/inbox/N2", content=body, headers=headers)
        assert answer.status_code == 204
