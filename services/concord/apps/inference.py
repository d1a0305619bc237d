"""Composition root of inference: a predictor, the shelf it follows and the routes, as an app or for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import torch
from fastapi import FastAPI

import concord
from concord.apps.health import add_health
from concord.apps.inference_routes import InferenceService, InferenceSettings
from concord.apps.metrics import add_metrics
from concord.apps.model_routes import ModelOptions
from concord.apps.processors import inference_threads
from concord.apps.serve import Server, bind, connection_limits
from concord.apps.serve import run as serve_process
from concord.apps.shortcut import Shortcut
from concord.apps.traces import traces
from concord.apps.trainer import job_gate, job_predictor, job_task
from concord.job import Job
from concord.learning.task import Task
from concord.serving.batching import BatchLimits
from concord.serving.predictor import Predictor
from concord.serving.snapshots import RedisShelf
from concord.settings import Settings
from concord.site.ports import SnapshotShelf
from concord.telemetry.redis import redis_source
from concord.telemetry.registry import Source, Telemetry
from concord.telemetry.tracing import Tracing

__all__ = ["InferenceService", "InferenceSettings", "create_app", "create_inference", "inference_settings", "run"]


def run(job: Job, settings: Settings) -> None:
    """Answer prediction requests until SIGTERM or SIGINT."""
    with traces("inference", settings.site) as tracing:
        _run(job, settings, tracing)


def _run(job: Job, settings: Settings, tracing: Tracing | None) -> None:
    torch.set_num_threads(inference_threads(settings.threads))
    listener = bind(settings.host, settings.port)
    shelf = RedisShelf(settings.redis_url, job.name, settings.site, job.serving.keep)
    task = job_task(job)
    service = create_inference(job_predictor(job, task), shelf, inference_settings(job, task, settings), tracing)
    app = create_app(service, [redis_source(shelf.link.state)])
    server = Server(app, listener, drain=settings.drain, limits=connection_limits(settings))
    serve_process(server, at_end=shelf.close)


def inference_settings(job: Job, task: Task, settings: Settings) -> InferenceSettings:
    """What job and settings say of inference and of the versions of a model."""
    limits = BatchLimits(settings.batch_rows, settings.queue_rows, settings.queue_seconds)
    models = ModelOptions(job_gate(job, task), job.serving.shadow, settings.admin_token)
    return InferenceSettings(batch=limits, models=models)


def create_inference(
    predictor: Predictor,
    shelf: SnapshotShelf,
    settings: InferenceSettings | None = None,
    tracing: Tracing | None = None,
) -> InferenceService:
    """The prediction service of one site; the shelf stays the caller's to close."""
    return InferenceService(predictor, shelf, settings or InferenceSettings(), tracing=tracing)


def create_app(service: InferenceService, sources: Iterable[Source] = ()) -> FastAPI:
    """An app of the prediction routes alone, for a process of its own; `sources` are more to be measured."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(title="Concord inference", version=concord.__version__, lifespan=lifespan)
    app.include_router(service.router)
    app.add_middleware(Shortcut, routes=service.busiest())
    add_health(app, service.live, service.live, service.ready)
    add_metrics(app, Telemetry("inference", service.readings, *sources))
    return app
