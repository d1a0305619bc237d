"""A whole site in one process, for a laptop or a very small box: the main thread trains, another serves HTTP.

The same parts as in the separate processes meet here over the same Redis, so nothing depends on how they are
laid out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
from fastapi import FastAPI

import concord
from concord.apps.background import Ready
from concord.apps.exchange import ExchangeService, create_exchange, exchange_settings
from concord.apps.inference import InferenceService, create_inference
from concord.apps.serve import Server, bind
from concord.apps.trainer import (
    build_trainer,
    carrying,
    job_predictor,
    job_task,
    keeping_checkpoints,
    train_beside,
)
from concord.job import Job
from concord.mailbox.redis import RedisMailbox
from concord.serving.snapshots import RedisShelf
from concord.settings import Settings
from concord.site.post import Post


def run(job: Job, settings: Settings) -> None:
    """Train, exchange and serve until SIGTERM or SIGINT."""
    torch.set_num_threads(settings.threads or 1)  # the box has few cores, and other sites may share them
    listener = bind(settings.host, settings.port)
    task = job_task(job)
    mailbox = RedisMailbox(settings.redis_url, job.name, settings.site)
    shelf = RedisShelf(settings.redis_url, job.name, settings.site, job.serving.keep)
    post = Post(settings.site, mailbox, shelf)
    exchange = create_exchange(mailbox, exchange_settings(job, settings))
    inference = create_inference(job_predictor(job, task), shelf)
    with keeping_checkpoints():
        trainer = build_trainer(job, settings, task, post)
    server = Server(create_app(exchange, inference), listener, on_stop=exchange.release)

    async def serve(ready: Ready, stop: asyncio.Event) -> None:
        async with carrying(post), server.running():
            ready()
            await stop.wait()
        await mailbox.close()
        await shelf.close()

    train_beside(serve, trainer)


def create_app(exchange: ExchangeService, inference: InferenceService) -> FastAPI:
    """One app with the routes of both services; alive and ready as the exchange is."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with exchange.running(), inference.running():
            yield

    app = FastAPI(title="Concord site", version=concord.__version__, lifespan=lifespan)
    app.include_router(inference.router)
    app.include_router(exchange.router)
    app.add_api_route("/healthz", exchange.live, methods=["GET"], tags=["health"])
    app.add_api_route("/readyz", exchange.ready, methods=["GET"], tags=["health"])
    return app
