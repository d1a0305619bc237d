"""The exchange's routes and the courier behind them: a site's HTTP door for its neighbours.

The routes only turn requests into calls and errors into statuses. They know neither the task nor the model: what an
update must be like the exchange learns from the site's trainer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response

from concord.apps import exchange_docs as docs
from concord.apps.bare_routes import bare_router, read_body
from concord.apps.connections import remote_address
from concord.apps.door import peer_of
from concord.apps.exchange_errors import ERROR_STATUS, json_of, refusal_of
from concord.apps.health import answer
from concord.errors import (
    BodyTooLargeError,
    ConcordError,
    IdentityError,
    InputError,
    MailboxError,
    NotAllowed,
    RefusalReason,
    TooOftenError,
    UpdateRefused,
)
from concord.sealed import digest
from concord.settings import Secret
from concord.site.edges import NOTE_STATUS
from concord.site.journey import Journey, Step
from concord.site.ports import Mailbox
from concord.telemetry.exchange import exchange_source
from concord.transport.acceptance import Acceptance, EdgeBook
from concord.transport.courier import Courier
from concord.transport.http import NeighbourClient
from concord.transport.identity import Claim, Clock, Signer, Trust, Verifier
from concord.transport.lane import CourierSettings, EdgeRoute
from concord.transport.outbox import Outbox
from concord.transport.rates import RateLimits, Rates
from concord.transport.tls import LOOK_INTERVAL, SiteTls
from concord.transport.traffic import ExchangeState
from concord.wire.messages import Stamp
from concord.wire.sanity import FACTOR

log = logging.getLogger(__name__)

LONGEST_WAIT = 30.0
"""Seconds a pull may be held at most."""


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """One site's exchange.

    `routes` say how its neighbours are reached, `reroutes` gives what they are later on. `tls` is how HTTPS ones are
    trusted (None: as browsers do); if it is a site's, neighbours meet over mutual TLS only. `max_update_bytes` bounds
    an update (None: derived from the model). `absurd_factor` is how much larger than anything known its numbers may be
    (None: as they like). Seconds: `timeout` bounds connecting to a neighbour and each read and
    write, `clock_window` is how far the clocks of two sites may be apart, `retry_after` is what a caller is told while
    the mailbox is away, `look_interval` is how often changed certificates are looked for. `rates` is how often callers
    may ask.
    """

    site: str
    trust: Trust
    routes: tuple[EdgeRoute, ...] = ()
    reroutes: AsyncIterator[tuple[EdgeRoute, ...]] | None = None
    max_update_bytes: int | None = None
    absurd_factor: float | None = FACTOR
    timeout: float = 10.0
    clock_window: float = 300.0
    retry_after: int = 1
    tls: ssl.SSLContext | SiteTls | None = None
    look_interval: float = LOOK_INTERVAL
    courier: CourierSettings = field(default_factory=CourierSettings)
    rates: RateLimits = field(default_factory=RateLimits)


class ExchangeService:
    """The routes and the courier behind them: include `router` in an app, keep `running` open around it.

    Without mutual TLS `router` has all routes; with it, those for neighbours are in `door` alone, to be served with the
    `tls` of the site.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        settings: ExchangeSettings,
        clock: Clock,
        rng: random.Random,
        journey: Journey | None = None,
    ) -> None:
        self._journey = journey or Journey()
        self.state = ExchangeState(settings.site)
        self.tls = settings.tls if isinstance(settings.tls, SiteTls) else None
        self.readings = exchange_source(self.state, self.tls)
        self.door = self._door_routes()
        self.router = self._routes()
        self._mailbox = mailbox
        self._settings = settings
        self._rates = Rates(settings.rates)
        # What is in the body proves nothing more, so who sends too often is told before it has come.
        self._claims_suffice = not isinstance(settings.trust, Secret)
        self._verifier = Verifier(settings.site, settings.trust, clock, settings.clock_window)
        signer = Signer(settings.site, settings.trust, clock)
        self._client = NeighbourClient(signer, settings.timeout, settings.tls, self._journey.headers)
        self._book = EdgeBook(mailbox, settings.site, settings.max_update_bytes)
        self._acceptance = Acceptance(mailbox, self._book, self.state, clock, settings.absurd_factor, self._journey)
        self._outbox = Outbox(mailbox, self.state, rng)
        self._courier = Courier(
            mailbox,
            settings.routes,
            self._client,
            self._outbox,
            self._acceptance,
            self.state,
            settings.courier,
            rng,
            self._journey,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._met = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver and fetch until the context ends; the mailbox stays the caller's to close."""
        self._tasks = [asyncio.create_task(self._courier.run(), name="courier")]
        if self._settings.reroutes is not None:
            self._tasks.append(asyncio.create_task(self._follow(self._settings.reroutes), name="routes"))
        if self.tls is not None:
            following = self.tls.follow(self._settings.look_interval)
            self._tasks.append(asyncio.create_task(following, name="watch over certificates"))
        for task in self._tasks:
            task.add_done_callback(_report_end)
        try:
            yield
        finally:
            self.release()
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            await self._client.close()

    async def _follow(self, reroutes: AsyncIterator[tuple[EdgeRoute, ...]]) -> None:
        async for routes in reroutes:
            self._courier.reroute(routes)

    def release(self) -> None:
        """Answer every pull that is held, and hold none from now on: the server is about to stop."""
        self._outbox.close()

    def _door_routes(self) -> APIRouter:
        router = bare_router()
        router.add_api_route(
            "/v1/inbox/{sender}",
            self.put_inbox,
            methods=["PUT"],
            tags=["exchange"],
            responses=docs.PUT_INBOX,
            openapi_extra=docs.PUT_INBOX_REQUEST,
        )
        router.add_api_route(
            "/v1/outbox/{receiver}",
            self.get_outbox,
            methods=["GET"],
            tags=["exchange"],
            responses=docs.GET_OUTBOX,
            openapi_extra=docs.GET_OUTBOX_REQUEST,
        )
        return router

    def _routes(self) -> APIRouter:
        router = bare_router() if self.tls is not None else self._door_routes()
        router.add_api_route("/v1/status", self.status, methods=["GET"], tags=["exchange"])
        return router

    # --- routes -------------------------------------------------------------------------------------------

    async def put_inbox(self, request: Request, sender: str) -> Response:
        """Take in one update from a neighbour: 204 stored, 200 known already, otherwise why not."""
        return await self._answer(self._store(request, sender))

    async def get_outbox(self, request: Request, receiver: str) -> Response:
        """The newest update for a neighbour if newer than `after`, waiting up to `wait` seconds for one."""
        return await self._answer(self._fetch(request, receiver))

    async def status(self, request: Request) -> Response:
        """What the site knows of itself: its trainer's status, and the exchange's view of every edge."""
        note, mailbox = await self._trainer_status()
        exchange = {
            "mailbox": mailbox,
            "unproven": self.state.unproven,
            "too_often": self.state.too_often,
            "turned_away": dict(self.state.turned_away),
            "emptied": self.state.emptied,
            "mailbox_errors": self.state.mailbox_errors,
            "tls": None if self.tls is None else self.tls.to_dict(),
            "edges": {neighbour: traffic.to_dict() for neighbour, traffic in self.state.edges.items()},
        }
        return json_of(200, {"site": self.state.site, **note, "exchange": exchange})

    async def started(self, request: Request) -> Response:
        """200 once the mailbox was reached."""
        if not self._met:
            try:
                await self._mailbox.read_note(NOTE_STATUS)
            except MailboxError as error:
                return answer("started", False, str(error))
        self._met = True
        return answer("started", True)

    async def live(self, request: Request) -> Response:
        """200 while the process does its work."""
        return answer("live", self.is_live)

    @property
    def is_live(self) -> bool:
        """Whether everything that works in the background still does."""
        return not any(task.done() for task in self._tasks)

    async def ready(self, request: Request) -> Response:
        """200 if the mailbox can be reached and the trainer has said what the edges are; 503 and why not."""
        return await self._answer(self._ready())

    # --- what they do -------------------------------------------------------------------------------------

    async def _store(self, request: Request, sender: str) -> Response:
        claim = self._claim(request, sender)
        limit = await self._acceptance.limit(sender)
        if self._claims_suffice:
            self._admit(request, sender)
        body = await self._read(request, sender, limit)
        self._verifier.confirm(claim, digest(body))
        if not self._claims_suffice:
            self._admit(request, sender)
        self._courier.heard(sender)
        try:
            receipt = await self._acceptance.accept(sender, body)
        except UpdateRefused as refusal:
            return refusal_of(refusal, await self._book.expectation(sender))
        if receipt.stored:
            return Response(status_code=204)
        return json_of(200, {"newest": str(receipt.newest)})

    async def _read(self, request: Request, sender: str, limit: int) -> bytes:
        try:
            return await read_body(request, limit)
        except BodyTooLargeError as error:
            refusal = UpdateRefused(RefusalReason.TOO_LARGE, f"an update from {sender} has {error.expected}")
            self._acceptance.refuse(sender, refusal)
            raise refusal from error

    async def _fetch(self, request: Request, receiver: str) -> Response:
        claim = self._claim(request, receiver)
        await self._acceptance.limit(receiver)
        self._verifier.confirm(claim, _DIGEST_OF_NOTHING)
        self._admit(request, receiver)
        self._courier.heard(receiver)
        after, wait = _read_position(request), _read_wait(request)
        slot = await self._outbox.poll(receiver, after, 0.0)
        if slot is None and after is not None:
            self.state.edges[receiver].delivered = after
            await self._outbox.heed(receiver, after)
        if slot is None:
            slot = await self._outbox.poll(receiver, after, wait)
        if slot is None:
            return Response(status_code=304 if "if-none-match" in request.headers else 204)
        self.state.edges[receiver].bytes_out += len(slot.blob)
        self._journey.outgoing(Step.DELIVERED, receiver, slot.stamp, 0.0)
        headers = {"ETag": f'"{slot.stamp}"', **self._journey.headers(receiver, slot.stamp)}
        return Response(slot.blob, headers=headers, media_type="application/octet-stream")

    def _admit(self, request: Request, site: str) -> None:
        """It is the neighbour that it says it is, and may ask so often; else TooOftenError."""
        self._rates.proven(remote_address(request), site)

    def _claim(self, request: Request, site: str) -> Claim:
        self._rates.approach(remote_address(request), site)
        claim = self._verifier.claim(request.method, _target(request), request.headers, peer_of(request))
        if claim.site != site:
            raise NotAllowed(f"{claim.site[:64]!r} may use its own slot only, not that of {site[:64]!r}")
        return claim

    async def _ready(self) -> Response:
        await self._book.refresh()
        return json_of(200, {"ready": True})

    async def _trainer_status(self) -> tuple[dict[str, object], str]:
        try:
            note = json.loads(await self._mailbox.read_note(NOTE_STATUS) or "{}")
        except MailboxError as error:
            return {}, str(error)
        except ValueError:
            return {}, "the trainer's status cannot be read"
        return (note if isinstance(note, dict) else {}), "ok"

    async def _answer(self, work: Awaitable[Response]) -> Response:
        try:
            return await work
        except UpdateRefused as refusal:
            return refusal_of(refusal, None)
        except (IdentityError, InputError, MailboxError, TooOftenError) as error:
            self.state.unproven += isinstance(error, IdentityError)
            self.state.too_often += isinstance(error, TooOftenError)
            self.state.mailbox_errors += isinstance(error, MailboxError)
            return self._problem(error)

    def _problem(self, error: ConcordError) -> Response:
        status, reason = next((s, reason) for kind, s, reason in ERROR_STATUS if isinstance(error, kind))
        headers = {"Retry-After": str(self._settings.retry_after)} if status == 503 else None
        if isinstance(error, TooOftenError):
            headers = {"Retry-After": str(math.ceil(error.wait))}
        return json_of(status, {"reason": reason, "detail": str(error)}, headers)


def _report_end(task: asyncio.Task[None]) -> None:
    # The process lives on and answers 503 on /healthz, so that whoever runs it can restart it.
    if not task.cancelled():
        log.critical("the %s broke; updates may not be delivered any more", task.get_name(), exc_info=task.exception())


_DIGEST_OF_NOTHING = digest(b"")


def _target(request: Request) -> str:
    """Path and query exactly as sent: what the signature covers."""
    path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def _read_position(request: Request) -> Stamp | None:
    text = request.query_params.get("after") or request.headers.get("if-none-match", "").strip('"')
    if not text:
        return None
    try:
        return Stamp.parse(text)
    except (ValueError, TypeError) as error:
        raise InputError("after", f"expected epoch.incarnation.sequence, found {text[:64]!r}") from error


def _read_wait(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        wait = float(text)
    except ValueError:
        wait = -1.0
    if not 0.0 <= wait <= LONGEST_WAIT:
        raise InputError("wait", f"expected seconds from 0 to {LONGEST_WAIT:g}, found {text[:64]!r}")
    return wait
