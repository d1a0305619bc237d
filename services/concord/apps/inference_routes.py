"""Predictions over HTTP: the routes of the Open Inference Protocol V2, and a plain form of it.

Small requests to a small model are answered on the event loop: a forward pass of a few dozen microseconds is
cheaper than the way to another thread and back. Anything else goes to one thread of its own, so that neither
the loop nor a small request waits for it, and torch is not asked to run on more threads than there are cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response

import concord
from concord.apps.bare_routes import Endpoint, bare_router, read_body
from concord.apps.inference_docs import V1_PREDICT, V2_INFER, Json
from concord.apps.model_routes import ModelOptions, ModelService
from concord.crew import Crew
from concord.errors import (
    BodyError,
    BodyTooLargeError,
    InputError,
    MailboxError,
    NoModelError,
    UnknownModelError,
)
from concord.serving import plain, protocol
from concord.serving.bodies import Reply, encode
from concord.serving.counters import InferenceState
from concord.serving.predictor import PERSONAL_SUFFIX, Predictor, ServedModel
from concord.serving.versions import Versions
from concord.serving.watcher import WatchTimes
from concord.site.ports import SnapshotShelf

Answer = Callable[[bytes, ServedModel], Reply]

VERSION_HEADER = "Concord-Model-Version"
ROUND_HEADER = "Concord-Model-Round"

_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (BodyTooLargeError, 413),
    (BodyError, 400),
    (UnknownModelError, 404),
    (NoModelError, 503),
    (MailboxError, 503),
)
"""First match wins; any other InputError has the status that the format's callers expect."""


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """`max_body_bytes` bounds a request, `retry_after` is in seconds.

    A request is answered on the event loop if its body has at most `inline_bytes` and one row takes the model
    at most `inline_seconds`; higher values make other requests wait longer behind it. `versions_kept` is how
    many versions besides the newest stay loaded once asked for, each the size of a model.
    """

    max_body_bytes: int = 4 << 20
    retry_after: int = 1
    inline_bytes: int = 16 << 10
    inline_seconds: float = 0.0005
    versions_kept: int = 2
    watch: WatchTimes = field(default_factory=WatchTimes)
    models: ModelOptions = field(default_factory=ModelOptions)


class InferenceService:
    """The routes and the watcher behind them: include `router` in an app, keep `running` open around it."""

    def __init__(
        self,
        predictor: Predictor,
        shelf: SnapshotShelf,
        settings: InferenceSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.state = InferenceState()
        self.predictor = predictor
        self.models = ModelService(predictor, shelf, settings.models, settings.watch, clock)
        self.watcher = self.models.watcher
        self.router = self._routes()
        self._versions = Versions(predictor, shelf, settings.versions_kept)
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="predict")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the shelf until the context ends."""
        crew = Crew()
        crew.add(self.watcher.run())
        try:
            with self.models.running():
                yield
        finally:
            await crew.dismiss()
            self._thread.shutdown(wait=False)

    def _routes(self) -> APIRouter:
        router = bare_router()

        def add(method: str, path: str, endpoint: Endpoint, docs: Json | None = None) -> None:
            router.add_api_route(path, endpoint, methods=[method], openapi_extra=docs, tags=["inference"])

        model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
        # Routes are tried in order, at several microseconds each: the busy ones first.
        add("POST", model + "/infer", self.infer, V2_INFER)
        add("POST", "/v1/predict", self.predict, V1_PREDICT)
        add("POST", version + "/infer", self.infer_version, V2_INFER)
        add("GET", "/v2", self.server_metadata)
        add("GET", "/v2/health/live", self.live)
        add("GET", "/v2/health/ready", self.ready)
        add("GET", model, self.model_metadata)
        add("GET", version, self.version_metadata)
        add("GET", model + "/ready", self.model_ready)
        add("GET", version + "/ready", self.version_ready)
        router.include_router(self.models.router)
        return router

    async def server_metadata(self, request: Request) -> Response:
        """Name and version of this server."""
        return _json({"name": "concord", "version": concord.__version__, "extensions": []})

    async def live(self, request: Request) -> Response:
        """The process answers."""
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        """200 as soon as there is a model to answer with, 503 before."""
        return await self._counted("ready", self._ready(None, None))

    async def model_ready(self, request: Request, name: str) -> Response:
        """200 if the model can answer, 404 if it is not served here, 503 before its first snapshot."""
        return await self._counted("ready", self._ready(name, None))

    async def version_ready(self, request: Request, name: str, version: str) -> Response:
        """200 if that version can answer: it is in service, or on the shelf."""
        return await self._counted("ready", self._ready(name, version))

    async def model_metadata(self, request: Request, name: str) -> Response:
        """The model's inputs, outputs, classes, and the versions loaded now."""
        return await self._counted("metadata", self._metadata(name, None))

    async def version_metadata(self, request: Request, name: str, version: str) -> Response:
        """The same for one version."""
        return await self._counted("metadata", self._metadata(name, version))

    async def infer(self, request: Request, name: str) -> Response:
        """Answer a request of the Open Inference Protocol from the newest model."""
        return await self._counted("infer", self._answer(request, protocol.answer, name, None))

    async def infer_version(self, request: Request, name: str, version: str) -> Response:
        """Answer a request of the Open Inference Protocol from one version, if it is still on the shelf."""
        return await self._counted("infer", self._answer(request, protocol.answer, name, version))

    async def predict(self, request: Request) -> Response:
        """Predict from plain rows of numbers with the newest model, or that of the query's `model`."""
        name = request.query_params.get("model") if request.scope["query_string"] else None
        return await self._counted("predict", self._answer(request, plain.answer, name, None), 422)

    async def _counted(self, route: str, work: Awaitable[Response], wrong_input: int = 400) -> Response:
        started = time.perf_counter()
        try:
            response = await work
        except (InputError, MailboxError) as error:
            response = self._problem(error, wrong_input)
        self.state.observe(route, response.status_code, time.perf_counter() - started)
        return response

    def _problem(self, error: InputError | MailboxError, wrong_input: int) -> Response:
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), wrong_input)
        headers = {"Retry-After": str(self._settings.retry_after)} if status == 503 else None
        return Response(encode(_explain(error)), status, headers, "application/json")

    async def _answer(self, request: Request, answer: Answer, name: str | None, version: str | None) -> Response:
        body = await read_body(request, self._settings.max_body_bytes)
        served = await self._find(name, version)
        reply = await self._compute(answer, body, served)
        self.state.rows += reply.rows
        return Response(reply.body, headers=_origin(served), media_type="application/json")

    async def _compute(self, answer: Answer, body: bytes, served: ServedModel) -> Reply:
        if len(body) <= self._settings.inline_bytes and served.seconds <= self._settings.inline_seconds:
            return answer(body, served)
        return await asyncio.get_running_loop().run_in_executor(self._thread, answer, body, served)

    async def _find(self, name: str | None, version: str | None) -> ServedModel:
        self._check_name(name)
        if version is None:
            served = self.predictor.current()
        elif version.isascii() and version.isdecimal() and len(version) < 16:
            served = await self._versions.find(int(version))
        else:
            raise UnknownModelError("model_version", "versions are decimal numbers")
        return served if name in (None, self.predictor.name) else served.own_variant()

    def _check_name(self, name: str | None) -> None:
        if name not in (None, self.predictor.name, self.predictor.name + PERSONAL_SUFFIX):
            raise UnknownModelError("model_name", f"{self.predictor.name!r} is the one served here")

    async def _ready(self, name: str | None, version: str | None) -> Response:
        served = await self._find(name, version)
        about = {} if name is None else {"name": name}
        return _json({**about, "ready": True}, _origin(served))

    async def _metadata(self, name: str, version: str | None) -> Response:
        served = await self._find(name, version)
        at_hand = self._versions.at_hand() if version is None else (served.snapshot.version,)
        return _json(protocol.describe_model(served, at_hand), _origin(served))


def _origin(served: ServedModel) -> dict[str, str]:
    return {VERSION_HEADER: str(served.snapshot.version), ROUND_HEADER: str(served.snapshot.round)}


def _json(fields: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Response:
    return Response(encode(fields), headers=headers, media_type="application/json")


def _explain(error: InputError | MailboxError) -> dict[str, object]:
    if isinstance(error, MailboxError):
        return {"error": f"the shelf of models is out of reach: {error}"}
    if isinstance(error, NoModelError):
        return {"error": error.expected, "field": error.field, "expected": error.expected}
    return {
        "error": f"{error.field}: expected {error.expected}",
        "field": error.field,
        "expected": error.expected,
    }
