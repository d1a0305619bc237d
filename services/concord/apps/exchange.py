"""Composition root of the exchange: mailbox, identity and routes to neighbours, as an app or for one."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from fastapi import FastAPI

import concord
from concord.apps.door import open_door, opened
from concord.apps.exchange_routes import ExchangeService, ExchangeSettings
from concord.apps.garbage import giving_back
from concord.apps.health import add_health
from concord.apps.members import Members
from concord.apps.metrics import add_metrics
from concord.apps.reach import plan_routes
from concord.apps.serve import Server, bind, connection_limits
from concord.apps.serve import run as serve_process
from concord.apps.traces import traces
from concord.errors import (
    JobError,
)
from concord.job import Job
from concord.job.membership import Membership
from concord.mailbox.redis import RedisMailbox
from concord.settings import Settings
from concord.site.journey import Journey
from concord.site.ports import Mailbox
from concord.telemetry.redis import redis_source
from concord.telemetry.registry import Source, Telemetry
from concord.telemetry.tracing import Tracing
from concord.transport.identity import INSECURE, Certified
from concord.transport.lane import EdgeRoute
from concord.transport.tls import SiteTls

__all__ = ["ExchangeService", "ExchangeSettings", "create_app", "create_exchange", "exchange_settings", "run"]

log = logging.getLogger(__name__)


def create_exchange(
    mailbox: Mailbox,
    settings: ExchangeSettings,
    *,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
    journey: Journey | None = None,
) -> ExchangeService:
    """The exchange of one site. `clock` gives seconds since the Unix epoch, `rng` the jitter of retries."""
    return ExchangeService(mailbox, settings, clock, rng or random.Random(), journey)  # noqa: S311 (no secret)


def exchange_settings(job: Job, settings: Settings, members: Members) -> ExchangeSettings:
    """What one site's exchange is to do; JobError if it was not said how sites know each other, or if the certificates
    cannot be used."""

    secret = settings.identity_secret()
    tls = None if settings.tls_dir is None else SiteTls(settings.tls_dir, job.name, settings.site)

    def routes(membership: Membership) -> tuple[EdgeRoute, ...]:
        planned = plan_routes(job, settings.site, settings.peers, membership)
        if tls is not None:
            _require_https(planned)
        return planned

    async def reroutes() -> AsyncIterator[tuple[EdgeRoute, ...]]:
        async for membership in members.changes():
            try:
                yield routes(membership)
            except JobError as error:
                log.error("calls its neighbours as before: %s", error)

    return ExchangeSettings(
        site=settings.site,
        trust=secret or INSECURE if tls is None else Certified(job.name, secret),
        routes=routes(members.now),
        reroutes=reroutes() if settings.topology is not None else None,
        max_update_bytes=job.exchange.max_update_bytes,
        absurd_factor=job.exchange.absurd_factor,
        timeout=job.exchange.timeout,
        tls=tls,
    )


def _require_https(routes: Iterable[EdgeRoute]) -> None:
    for route in routes:
        if route.url is not None and not route.url.startswith("https://"):
            raise JobError(
                f"the address of {route.neighbour} is {route.url}, but a site with certificates (CONCORD_TLS_DIR) "
                "calls https:// addresses only: give that of its exchange port"
            )


def run(job: Job, settings: Settings) -> None:
    """Exchange updates until SIGTERM or SIGINT."""
    with traces("exchange", settings.site) as tracing:
        _run(job, settings, tracing)


def _run(job: Job, settings: Settings, tracing: Tracing | None) -> None:
    mailbox = RedisMailbox(settings.redis_url, job.name, settings.site)
    journey = Journey(job.name, settings.site, tracing)
    service = create_exchange(mailbox, exchange_settings(job, settings, Members(job, settings)), journey=journey)
    limits, turned_away = connection_limits(settings), service.state.turned_away
    door = open_door(service.door, service.tls, settings, service.release, turned_away)
    listener = bind(settings.host, settings.port)
    app = create_app(service, door, [redis_source(mailbox.link.state)])
    server = Server(app, listener, service.release, limits=limits, turned_away=turned_away)
    serve_process(server, at_end=mailbox.close)


def create_app(service: ExchangeService, door: Server | None = None, sources: Iterable[Source] = ()) -> FastAPI:
    """An app of the exchange alone, for a process that does nothing else.

    `door` serves as long as it does, `sources` are more to be measured.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running(), opened(door), giving_back():
            yield

    app = FastAPI(title="Concord exchange", version=concord.__version__, lifespan=lifespan)
    app.include_router(service.router)
    add_health(app, service.started, service.live, service.ready)
    add_metrics(app, Telemetry("exchange", service.readings, *sources))
    return app
