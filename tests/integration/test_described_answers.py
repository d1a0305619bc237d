"""Every answer of every HTTP app is one that its OpenAPI page tells of, whatever schemathesis asks over real HTTP.

The pages are read from the servers, so that a new route is asked as soon as it is there. `make fuzz` asks longer.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from requests.auth import AuthBase
from schemathesis import Case, GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from concord.apps import combined
from concord.apps.background import Background, Ready
from concord.apps.exchange import ExchangeSettings, create_exchange
from concord.apps.fleet_routes import create_app as create_fleet
from concord.apps.health import TrainerHealth
from concord.apps.inference import InferenceSettings, create_inference
from concord.apps.inference import create_app as create_inference_app
from concord.apps.serve import Server, bind
from concord.fleet.presence import Presence
from concord.fleet.report import report
from concord.mailbox.memory import MemoryMailbox
from concord.sealed import digest
from concord.site.edges import NOTE_EDGES
from concord.site.ports import Box
from concord.transport.identity import Signer
from exchange_sites import SECRET, edge_table, eventually, exchange_site, publish, update_slot
from resumed import with_trainer
from served_models import FragileShelf, marked_snapshot, new_predictor

EXAMPLES = int(os.environ.get("CONCORD_ASK", "10"))
"""Requests to each route, and as many again that break what its page asks for."""
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PATIENCE = 20.0

Site = Callable[[], AbstractAsyncContextManager[str]]


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The URL of a site that is served from another thread."""
    url: list[str] = []

    async def service(ready: Ready, stop: asyncio.Event) -> None:
        async with site() as found:
            url.append(found)
            ready()
            await stop.wait()

    ended = threading.Event()
    background = Background(service, on_exit=ended.set)
    background.start(PATIENCE)
    try:
        yield url[0]
    finally:
        background.stop(PATIENCE)


@asynccontextmanager
async def exchange() -> AsyncIterator[str]:
    """A site whose neighbour N2 has news to fetch."""
    async with exchange_site("N1", "N2", "N3") as site:
        await publish(site, "N2", 1)
        yield site.url


@asynccontextmanager
async def inference() -> AsyncIterator[str]:
    """A model in service."""
    shelf = FragileShelf()
    await shelf.publish(marked_snapshot(1))
    service = create_inference(new_predictor(), shelf, InferenceSettings(max_body_bytes=4096))
    server = Server(create_inference_app(service), bind("127.0.0.1", 0))
    async with server.running():
        await eventually(lambda: service.predictor.served is not None)
        yield server.url


@asynccontextmanager
async def whole_site() -> AsyncIterator[str]:
    """All routes in one app, with a trainer that has not begun and no model yet: much is 503."""
    mailbox = MemoryMailbox()
    await mailbox.write_note(NOTE_EDGES, edge_table("N2").to_json())
    await mailbox.put(Box.OUTBOX, "N2", update_slot("N1", "N2", 1))
    door = create_exchange(mailbox, ExchangeSettings("N1", SECRET))
    predictions = create_inference(new_predictor(), FragileShelf())
    with TemporaryDirectory() as folder:
        _, trainer = with_trainer(Path(folder), "ecl", 1)
        app = combined.create_app(door, predictions, TrainerHealth(trainer, mailbox, 0.0))
        async with (server := Server(app, bind("127.0.0.1", 0), door.release)).running():
            yield server.url


@asynccontextmanager
async def trainer() -> AsyncIterator[str]:
    """A trainer that has not begun."""
    with TemporaryDirectory() as folder:
        _, trainer = with_trainer(Path(folder), "ecl", 1)
        app = TrainerHealth(trainer, MemoryMailbox(), 0.0).app()
        async with (server := Server(app, bind("127.0.0.1", 0))).running():
            yield server.url


class _Fleet:
    """A fleet that leads."""

    started = True
    alive = False

    def status(self) -> dict[str, object]:
        nothing = report("digits", None, {}, Presence(1.0), (), ())
        return {**nothing, "leader": "fleet-a", "leading": True, "failures": []}


@asynccontextmanager
async def fleet() -> AsyncIterator[str]:
    """The fleet's port."""
    server = Server(create_fleet(_Fleet()), bind("127.0.0.1", 0))
    async with server.running():
        yield server.url


class _Signed(AuthBase):
    """Signs each request as the neighbour N2 does."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        content = body.encode() if isinstance(body, str) else body
        headers = Signer("N2", SECRET).headers("N1", str(request.method), request.path_url, digest(content))
        request.headers.update(headers)
        return request


SITES: dict[str, Site] = {
    "exchange": exchange,
    "inference": inference,
    "whole site": whole_site,
    "trainer": trainer,
    "fleet": fleet,
}


@pytest.mark.parametrize("name", SITES)
def test_every_answer_is_one_that_the_page_tells_of(name: str) -> None:
    with served(SITES[name]) as url, requests.Session() as session:
        session.trust_env = False
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()
            assert _ask(operation, GenerationMode.POSITIVE, url, session)
            if list(operation.body) or list(operation.query):
                _ask(operation, GenerationMode.NEGATIVE, url, session)


def _ask(operation: APIOperation, mode: GenerationMode, url: str, session: requests.Session) -> int:
    """Ask one route; how often. Half of the requests to a neighbour's slot are of that neighbour."""
    asked = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), ours=st.booleans(), update=st.booleans())
    def ask(case: Case, ours: bool, update: bool) -> None:
        nonlocal asked
        asked += 1
        if ours:
            case.path_parameters.update({name: "N2" for name in ("sender", "receiver") if name in case.path_parameters})
        if update and "sender" in case.path_parameters:
            case.body = update_slot("N2", "N1", asked).blob
        answer = case.call(base_url=url, session=session, auth=_Signed() if ours else None, timeout=PATIENCE)
        assert answer.status_code != 500, answer.text  # 503 is on the page, where it may be
        case.validate_response(answer, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # where a body may be anything, nothing can be broken
    return asked
