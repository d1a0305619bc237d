"""The exchange's routes, asked over real HTTP: every status, and what is in the mailbox afterwards."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from concord.apps.exchange import ExchangeSettings, create_app, create_exchange
from concord.apps.exchange_errors import REFUSAL_STATUS
from concord.apps.serve import Server, bind, in_thread
from concord.errors import EnvironmentProblem, RefusalReason
from concord.mailbox.memory import MemoryMailbox
from concord.sealed import digest
from concord.settings import Secret
from concord.site.edges import NOTE_EDGES, NOTE_FLOOR, NOTE_STATUS
from concord.site.ports import Box, Slot
from concord.transport.http import SignedAuth
from concord.transport.identity import INSECURE, Signer, Trust
from concord.wire.codec import read_header
from exchange_sites import (
    SECRET,
    TERMS,
    TLS,
    Site,
    edge_table,
    eventually,
    exchange_site,
    publish,
    update_slot,
)

pytestmark = pytest.mark.anyio


class Caller:
    """A site that asks N1, as the real client does but for what a test wants otherwise."""

    def __init__(self, client: httpx.AsyncClient, url: str, name: str = "N2", trust: Trust = SECRET) -> None:
        self._client = client
        self._url = url
        self.name = name
        self.auth = SignedAuth(Signer(name, trust), "N1")

    async def put(self, slot: Slot | bytes, sender: str | None = None) -> httpx.Response:
        body = slot.blob if isinstance(slot, Slot) else slot
        url = f"{self._url}/v1/inbox/{sender or self.name}"
        return await self._client.put(url, content=body, auth=self.auth)

    async def get(self, receiver: str | None = None, etag: str | None = None, **query: str | float) -> httpx.Response:
        url = f"{self._url}/v1/outbox/{receiver or self.name}"
        headers = {} if etag is None else {"if-none-match": etag}
        return await self._client.get(url, params=query, headers=headers, auth=self.auth)

    async def ask(self, path: str) -> httpx.Response:
        return await self._client.get(self._url + path)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30.0, trust_env=False, verify=TLS) as client:
        yield client


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with exchange_site("N1", "N2", "N3") as site:
        yield site


@pytest.fixture
async def caller(client: httpx.AsyncClient, site: Site) -> Caller:
    return Caller(client, site.url)


def refused(site: Site, neighbour: str = "N2") -> dict[RefusalReason, int]:
    return dict(site.service.state.edges[neighbour].refused)


async def test_a_new_update_is_stored(caller: Caller, site: Site) -> None:
    slot = update_slot("N2", "N1", 7)
    answer = await caller.put(slot)
    assert (answer.status_code, answer.content) == (204, b"")
    assert await site.mailbox.read(Box.INBOX, "N2") == slot
    traffic = site.service.state.edges["N2"]
    assert (traffic.received, traffic.bytes_in) == (1, len(slot.blob))


@pytest.mark.parametrize("sequence", [7, 6])
async def test_the_same_or_an_older_update_is_known_already(caller: Caller, site: Site, sequence: int) -> None:
    await caller.put(update_slot("N2", "N1", 7))
    answer = await caller.put(update_slot("N2", "N1", sequence, value=2.0))
    assert (answer.status_code, answer.json()) == (200, {"newest": "1.1.7"})
    slot = await site.mailbox.read(Box.INBOX, "N2")
    assert slot is not None
    assert slot.blob == update_slot("N2", "N1", 7, sent_at=_sent_at(slot)).blob


def _sent_at(slot: Slot) -> float:
    return read_header(slot.blob, 1 << 20).sent_at


async def test_a_restarted_sender_is_not_taken_for_an_old_one(caller: Caller) -> None:
    await caller.put(update_slot("N2", "N1", 700))
    answer = await caller.put(update_slot("N2", "N1", 1, incarnation=2))
    assert answer.status_code == 204


WRONG: dict[RefusalReason, Slot | bytes] = {
    RefusalReason.MALFORMED: update_slot("N2", "N1", 1, fingerprint=""),
    RefusalReason.CHECKSUM: update_slot("N2", "N1", 1).blob[:-1] + b"?",
    RefusalReason.PROTOCOL: update_slot("N2", "N1", 1, protocol=99),
    RefusalReason.FEDERATION: update_slot("N2", "N1", 1, federation="other"),
    RefusalReason.FINGERPRINT: update_slot("N2", "N1", 1, fingerprint="beef"),
    RefusalReason.IDENTITY: update_slot("N3", "N1", 1),
    RefusalReason.EPOCH: update_slot("N2", "N1", 1, epoch=2),
    RefusalReason.TERMS: update_slot("N2", "N1", 1, penalty=0.75),
    RefusalReason.LAYOUT: update_slot("N2", "N1", 1, size=9),
    RefusalReason.NOT_FINITE: update_slot("N2", "N1", 1, value=float("nan")),
    RefusalReason.ABSURD: update_slot("N2", "N1", 1, value=1e12),
    RefusalReason.TOO_LARGE: update_slot("N2", "N1", 1, size=100_000),
}
EXPECTED: dict[RefusalReason, object] = {
    RefusalReason.FEDERATION: "test",
    RefusalReason.FINGERPRINT: "f00d",
    RefusalReason.EPOCH: 1,
    RefusalReason.TERMS: {
        "algorithm": "ecl",
        "penalty": TERMS.penalty,
        "averaging": TERMS.averaging,
    },
}


@pytest.mark.parametrize("reason", RefusalReason)
async def test_a_wrong_update_is_refused_counted_and_not_stored(
    caller: Caller, site: Site, reason: RefusalReason
) -> None:
    answer = await caller.put(WRONG[reason])
    body = answer.json()
    assert answer.status_code == REFUSAL_STATUS[reason]
    assert body["reason"] == reason.value
    assert body["detail"]
    assert body.get("expected") == EXPECTED.get(reason)
    assert refused(site) == {reason: 1}
    assert await site.mailbox.read(Box.INBOX, "N2") is None


async def test_bytes_that_are_no_update_are_refused(caller: Caller) -> None:
    for body in (b"", b"{}", b"\xff" * 200, b"\x00" * 8):
        answer = await caller.put(body)
        assert (answer.status_code, answer.json()["reason"]) == (422, "checksum")


async def test_too_large_is_said_before_the_body_has_come(site: Site) -> None:
    headers = Signer("N2", SECRET).headers("N1", "PUT", "/v1/inbox/N2", digest(b""))
    lines = [f"{name}: {value}" for name, value in headers.items()]
    request = ["PUT /v1/inbox/N2 HTTP/1.1", "host: n1", "content-length: 1000000000000", *lines, "", ""]
    port = httpx.URL(site.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join(request).encode())
    assert b" 413 " in await asyncio.wait_for(reader.readline(), 5.0)
    writer.close()
    await writer.wait_closed()


async def test_an_endless_body_is_cut_off(caller: Caller, site: Site) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 16
            yield b"x" * (1 << 16)
            await asyncio.sleep(0)

    headers = Signer("N2", SECRET).headers("N1", "PUT", "/v1/inbox/N2", digest(b""))
    async with httpx.AsyncClient(trust_env=False, verify=TLS) as client:
        request = client.put(f"{site.url}/v1/inbox/N2", content=endless(), headers=headers)
        sending = asyncio.create_task(request)
        await eventually(lambda: bool(refused(site)))
        sending.cancel()
        await asyncio.wait((sending,))
    assert refused(site) == {RefusalReason.TOO_LARGE: 1}
    assert sent < 64 << 20


async def test_an_unsigned_request_is_not_heard(client: httpx.AsyncClient, site: Site) -> None:
    url = f"{site.url}/v1/inbox/N2"
    for headers in ({}, {"concord-site": "N2"}):
        answer = await client.put(url, content=update_slot("N2", "N1", 1).blob, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (401, "identity")
    assert await site.mailbox.read(Box.INBOX, "N2") is None
    assert site.service.state.unproven == 2


async def test_another_secret_is_not_believed(client: httpx.AsyncClient, site: Site) -> None:
    liar = Caller(client, site.url, trust=Secret(b"not the secret at all"))
    assert (await liar.put(update_slot("N2", "N1", 1))).status_code == 401
    assert (await liar.get()).status_code == 401


async def test_a_recorded_request_is_refused_the_second_time(client: httpx.AsyncClient, site: Site) -> None:
    slot = update_slot("N2", "N1", 1)
    headers = Signer("N2", SECRET).headers("N1", "PUT", "/v1/inbox/N2", digest(slot.blob))
    answers = [await client.put(f"{site.url}/v1/inbox/N2", content=slot.blob, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [204, 401]


async def test_a_neighbour_may_use_its_own_slot_only(caller: Caller, site: Site) -> None:
    assert (await caller.put(update_slot("N3", "N1", 1), sender="N3")).status_code == 403
    assert (await caller.get(receiver="N3")).status_code == 403
    assert await site.mailbox.read(Box.INBOX, "N3") is None


async def test_a_stranger_is_turned_away(client: httpx.AsyncClient, site: Site) -> None:
    stranger = Caller(client, site.url, "N9")
    answer = await stranger.put(update_slot("N9", "N1", 1))
    assert (answer.status_code, answer.json()["reason"]) == (403, "not_allowed")
    assert (await stranger.get()).status_code == 403
    assert "N9" not in site.service.state.edges


async def test_without_a_secret_names_are_believed(client: httpx.AsyncClient) -> None:
    async with exchange_site("N1", "N2", trust=INSECURE) as site:
        caller = Caller(client, site.url, trust=INSECURE)
        assert (await caller.put(update_slot("N2", "N1", 1))).status_code == 204
        assert (await client.put(f"{site.url}/v1/inbox/N2", content=b"")).status_code == 401


async def test_before_the_trainer_has_spoken_callers_are_told_to_wait(client: httpx.AsyncClient) -> None:
    async with exchange_site("N1") as site:
        caller = Caller(client, site.url)
        for answer in (await caller.put(update_slot("N2", "N1", 1)), await caller.get()):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await caller.ask("/readyz")).status_code == 503
        assert (await caller.ask("/healthz")).status_code == 200
        await site.mailbox.write_note(NOTE_EDGES, edge_table("N2").to_json())
        await asyncio.sleep(0.06)
        assert (await caller.put(update_slot("N2", "N1", 1))).status_code == 204
        assert (await caller.ask("/readyz")).status_code == 200


async def test_a_changed_edge_is_noticed_at_once(caller: Caller, site: Site) -> None:
    await caller.put(update_slot("N2", "N1", 1))
    await site.mailbox.write_note(NOTE_EDGES, edge_table("N2", "N4", epoch=2).to_json())
    await asyncio.sleep(0.06)
    assert (await caller.put(update_slot("N2", "N1", 2, epoch=2))).status_code == 204
    assert (await caller.put(update_slot("N2", "N1", 3))).json()["expected"] == 2


async def test_an_edge_table_that_cannot_be_read_is_not_believed(client: httpx.AsyncClient) -> None:
    mailbox = MemoryMailbox()
    await mailbox.write_note(NOTE_EDGES, '{"edges": 1}')
    async with exchange_site("N1", mailbox=mailbox) as site:
        answer = await Caller(client, site.url).ask("/readyz")
        assert answer.status_code == 503
        assert "cannot be read" in answer.json()["detail"]


async def test_while_the_mailbox_is_away_callers_are_told_to_wait(caller: Caller, site: Site) -> None:
    await caller.put(update_slot("N2", "N1", 1))
    await site.mailbox.close()
    for answer in (
        await caller.put(update_slot("N2", "N1", 2)),
        await caller.get(),
        await caller.ask("/readyz"),
    ):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["reason"] == "unavailable"
    status = (await caller.ask("/v1/status")).json()
    assert status["exchange"]["mailbox"] != "ok"


async def test_a_pull_gets_the_newest(caller: Caller, site: Site) -> None:
    await publish(site, "N2", 3)
    slot = await publish(site, "N2", 4)
    answer = await caller.get()
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1.1.4"')
    assert answer.content == slot.blob


async def test_a_pull_gets_only_what_is_newer(caller: Caller, site: Site) -> None:
    assert (await caller.get()).status_code == 204
    await publish(site, "N2", 4)
    assert (await caller.get(after="1.1.3")).status_code == 200
    assert (await caller.get(after="1.1.4")).status_code == 204
    assert (await caller.get(etag='"1.1.3"')).status_code == 200
    assert (await caller.get(etag='"1.1.4"')).status_code == 304


async def test_a_held_pull_is_answered_as_soon_as_there_is_news(caller: Caller, site: Site) -> None:
    await publish(site, "N2", 4)
    pull = asyncio.create_task(caller.get(after="1.1.4", wait=20))
    await asyncio.sleep(0.2)
    assert not pull.done()
    await publish(site, "N3", 1)
    started = time.monotonic()
    await publish(site, "N2", 5)
    answer = await pull
    assert time.monotonic() - started < 1.0
    assert answer.headers["etag"] == '"1.1.5"'


async def test_a_held_pull_ends_with_nothing(caller: Caller) -> None:
    started = time.monotonic()
    assert (await caller.get(wait=0.2)).status_code == 204
    assert 0.2 <= time.monotonic() - started < 2.0


@pytest.mark.parametrize("query", [{"wait": 31}, {"wait": "nan"}, {"wait": "x"}, {"after": "1.2"}])
async def test_a_wrong_query_is_explained(caller: Caller, query: dict[str, str | float]) -> None:
    answer = await caller.get(**query)
    assert answer.status_code == 400
    assert next(iter(query)) in answer.json()["detail"]


async def test_stopping_lets_held_pulls_go(client: httpx.AsyncClient) -> None:
    async with exchange_site("N1", "N2") as site:
        pull = asyncio.create_task(Caller(client, site.url).get(wait=20))
        await asyncio.sleep(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 1.0
    assert (await pull).status_code == 204


async def test_a_pull_after_what_this_life_never_sent_raises_the_floor(caller: Caller, site: Site) -> None:
    await publish(site, "N2", 3, incarnation=1)
    assert (await caller.get(after="1.1.3")).status_code == 204
    assert await site.mailbox.read_note(NOTE_FLOOR) is None
    assert (await caller.get(after="1.4.900")).status_code == 204
    assert await site.mailbox.read_note(NOTE_FLOOR) == "4"


async def test_four_megabytes_pass(client: httpx.AsyncClient) -> None:
    async with exchange_site("N1", "N2", size=1_000_000) as site:
        caller = Caller(client, site.url)
        slot = update_slot("N2", "N1", 1, size=1_000_000)
        assert (await caller.put(slot)).status_code == 204
        assert await site.mailbox.read(Box.INBOX, "N2") == slot


async def test_status_says_what_trainer_and_exchange_know(caller: Caller, site: Site) -> None:
    await site.mailbox.write_note(NOTE_STATUS, '{"site": "N1", "progress": {"round": 12}}')
    await caller.put(update_slot("N2", "N1", 1))
    await caller.put(update_slot("N2", "N1", 1, epoch=9))
    status = (await caller.ask("/v1/status")).json()
    assert (status["site"], status["progress"]) == ("N1", {"round": 12})
    edge = status["exchange"]["edges"]["N2"]
    assert (edge["received"], edge["refused"], edge["circuit"]) == (1, {"epoch": 1}, "closed")
    assert status["exchange"]["mailbox"] == "ok"


@pytest.mark.parametrize("note", ["{", "[1]", '"x"'])
async def test_a_status_note_that_cannot_be_read_does_no_harm(caller: Caller, site: Site, note: str) -> None:
    await site.mailbox.write_note(NOTE_STATUS, note)
    answer = await caller.ask("/v1/status")
    assert (answer.status_code, answer.json()["site"]) == (200, "N1")


def test_every_reason_has_a_status() -> None:
    assert set(REFUSAL_STATUS) == set(RefusalReason)


def test_a_port_in_use_is_said_clearly() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"port {port}.*in use"):
            bind("127.0.0.1", port)


def test_an_exchange_can_live_in_a_thread() -> None:
    service = create_exchange(MemoryMailbox(), ExchangeSettings("N1", SECRET))
    with in_thread(Server(create_app(service), bind("127.0.0.1", 0), service.release)) as url:
        assert httpx.get(f"{url}/healthz", trust_env=False).json() == {"live": True}
    address = httpx.URL(url)
    with pytest.raises(OSError), socket.create_connection((address.host, address.port), 1.0):  # noqa: PT011
        pass
