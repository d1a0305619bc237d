"""A whole site in one process, for a laptop or a very small box: the main thread trains, another serves HTTP.

The same parts as in the separate processes meet here over the same Redis, so nothing depends on how they are
laid out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import torch
from fastapi import FastAPI, Request, Response

import concord
from concord.apps.background import Ready
from concord.apps.door import open_door, opened
from concord.apps.exchange import ExchangeService, create_exchange, exchange_settings
from concord.apps.garbage import giving_back, settle
from concord.apps.health import TrainerHealth, add_health
from concord.apps.inference import InferenceService, create_inference, inference_settings
from concord.apps.members import Members
from concord.apps.metrics import add_metrics
from concord.apps.model_defaults import fit_to_model
from concord.apps.serve import Server, bind, connection_limits
from concord.apps.shortcut import Shortcut
from concord.apps.traces import traces
from concord.apps.trainer import (
    beside,
    build_trainer,
    follow_members,
    job_predictor,
    job_task,
    keeping_checkpoints,
    train_beside,
    trainer_readings,
)
from concord.job import Job
from concord.mailbox.redis import RedisMailbox
from concord.serving.snapshots import RedisShelf
from concord.settings import Settings
from concord.site.journey import Journey
from concord.site.post import Post
from concord.telemetry.redis import RedisMemory, redis_source
from concord.telemetry.registry import Source, Telemetry
from concord.telemetry.tracing import Tracing


def run(job: Job, settings: Settings) -> None:
    """Train, exchange and serve until SIGTERM or SIGINT."""
    with traces("site", settings.site) as tracing:
        _run(job, settings, tracing)


def _run(job: Job, settings: Settings, tracing: Tracing | None) -> None:
    torch.set_num_threads(settings.threads or 1)  # the box has few cores, and other sites may share them
    listener = bind(settings.host, settings.port)
    task = job_task(job)
    job = fit_to_model(job, task)
    mailbox = RedisMailbox(settings.redis_url, job.name, settings.site)
    shelf = RedisShelf(settings.redis_url, job.name, settings.site, job.serving.keep)
    journey = Journey(job.name, settings.site, tracing)
    post = Post(settings.site, mailbox, shelf, journey=journey)
    members = Members(job, settings)
    exchange = create_exchange(mailbox, exchange_settings(job, settings, members), journey=journey)
    limits, turned_away = connection_limits(settings), exchange.state.turned_away
    door = open_door(exchange.door, exchange.tls, settings, exchange.release, turned_away)
    inference = create_inference(job_predictor(job, task), shelf, inference_settings(job, task, settings), tracing)
    with keeping_checkpoints():
        trainer = build_trainer(job, settings, task, post, members.now, journey)
    health = TrainerHealth(trainer, mailbox, job.training.pace)
    memory = RedisMemory(mailbox.link)
    sources = (trainer_readings(trainer, members), redis_source(mailbox.link.state, shelf.link.state), memory.readings)
    app = create_app(exchange, inference, health, door, sources)
    server = Server(app, listener, on_stop=exchange.release, limits=limits, turned_away=turned_away)

    async def serve(ready: Ready, stop: asyncio.Event) -> None:
        following = follow_members(trainer, job, settings.site, members)
        async with beside(post.run(), following, memory.run()), server.running():
            ready()
            await stop.wait()
        await mailbox.close()
        await shelf.close()

    settle()
    train_beside(serve, trainer)


def create_app(
    exchange: ExchangeService,
    inference: InferenceService,
    trainer: TrainerHealth,
    door: Server | None = None,
    sources: Iterable[Source] = (),
) -> FastAPI:
    """One app with the routes of both services; `door` serves as long as it does, `sources` are more to be measured.

    It has started when the trainer has, is alive while both are, and is ready when updates can come in; whether there
    is a model to predict with is a question of its own (`/v2/health/ready`).
    """

    async def live(request: Request) -> Response:
        return await trainer.live(request) if exchange.is_live else await exchange.live(request)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with exchange.running(), opened(door), inference.running(), giving_back():
            yield

    app = FastAPI(title="Concord site", version=concord.__version__, lifespan=lifespan)
    app.include_router(inference.router)
    app.add_middleware(Shortcut, routes=inference.busiest())
    app.include_router(exchange.router)
    add_health(app, trainer.started, live, exchange.ready)
    add_metrics(app, Telemetry("site", exchange.readings, inference.readings, *sources))
    return app
