"""Predictions over HTTP: the routes of the Open Inference Protocol V2, and a plain form of it.

A request is read, its model is chosen, the batcher computes, and the answer is written. Small ones are read and written
on the event loop; what takes longer goes to a thread, so that no small request waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, Request, Response
from torch import Tensor

import concord
from concord.apps.bare_routes import Endpoint, bare_router, read_body
from concord.apps.connections import remote_address
from concord.apps.inference_docs import MODEL_ROUTE, OTHERWISE, V1_PREDICT, V2_INDEX, V2_INFER, V2_LOAD, Json
from concord.apps.inference_errors import ERRORS, explain, headers_of, refusal_of
from concord.apps.model_routes import ModelOptions, ModelService
from concord.apps.uploads import FORM_TYPE, media_type, picture_in
from concord.crew import Crew
from concord.errors import BodyError, ConcordError, InputError, NoModelError, UnknownModelError
from concord.serving import plain, protocol
from concord.serving.batching import Batcher, BatchLimits
from concord.serving.bodies import Question, encode, parse_object
from concord.serving.counters import InferenceState
from concord.serving.pictures import Pictures
from concord.serving.predictor import PERSONAL_SUFFIX, Prediction, Predictor, ServedModel
from concord.serving.versions import Versions
from concord.serving.watcher import WatchTimes
from concord.site.ports import SnapshotShelf
from concord.telemetry.inference import inference_source
from concord.telemetry.tracing import Tracing

Read = Callable[[Request, bytes, ServedModel], Question]
T = TypeVar("T")

VERSION_HEADER = "Concord-Model-Version"
ROUND_HEADER = "Concord-Model-Round"
JSON_BYTES_HEADER = "Inference-Header-Content-Length"
_TRACED = frozenset({"infer", "predict"})
_GONE = 499
"""What a request is counted as whose caller left before its answer."""


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """`max_body_bytes` bounds a request; one of at most `inline_bytes` is read and answered on the event loop.

    `versions_kept` is how many versions besides the newest stay loaded once asked for, each the size of a model.
    """

    max_body_bytes: int = 4 << 20
    inline_bytes: int = 16 << 10
    versions_kept: int = 2
    batch: BatchLimits = field(default_factory=BatchLimits)
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
        tracing: Tracing | None = None,
    ) -> None:
        self.state = InferenceState()
        self.predictor = predictor
        self.models = ModelService(predictor, shelf, settings.models, settings.watch, clock)
        self.watcher = self.models.watcher
        self.batcher = Batcher(settings.batch)
        self.readings = inference_source(self.state, self.batcher, predictor, self.watcher, self.models.shadow)
        self.router = self._routes()
        self._versions = Versions(predictor, shelf, settings.versions_kept)
        self._settings = settings
        self._loaded = True
        self._tracing = tracing
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read and write")

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
            self.batcher.close()
            self._thread.shutdown(wait=False)

    def _routes(self) -> APIRouter:
        router = bare_router()

        def add(method: str, path: str, endpoint: Endpoint, docs: Json | None = None) -> None:
            router.add_api_route(
                path, endpoint, methods=[method], responses=OTHERWISE, openapi_extra=docs, tags=["inference"]
            )

        model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
        stored = "/v2/repository/models/{name}"
        # Routes are tried in order, at several microseconds each: the busy ones first.
        add("POST", model + "/infer", self.infer, V2_INFER)
        add("POST", "/v1/predict", self.predict, V1_PREDICT)
        add("POST", version + "/infer", self.infer_version, V2_INFER)
        add("GET", "/v2", self.server_metadata)
        add("GET", "/v2/health/live", self.live)
        add("GET", "/v2/health/ready", self.ready, MODEL_ROUTE)
        add("GET", model, self.model_metadata, MODEL_ROUTE)
        add("GET", version, self.version_metadata, MODEL_ROUTE)
        add("GET", model + "/ready", self.model_ready, MODEL_ROUTE)
        add("GET", version + "/ready", self.version_ready, MODEL_ROUTE)
        add("POST", "/v2/repository/index", self.index, V2_INDEX)
        add("POST", stored + "/load", self.load, V2_LOAD)
        add("POST", stored + "/unload", self.unload, V2_LOAD)
        router.include_router(self.models.router)
        return router

    def busiest(self) -> Mapping[str, Endpoint]:
        """The paths whose POSTs are worth a `Shortcut`."""
        name = self.predictor.name
        return {f"/v2/models/{name}/infer": partial(self.infer, name=name), "/v1/predict": self.predict}

    # --- about the server and its model ---------------------------------------------------------------------

    async def server_metadata(self, request: Request) -> Response:
        """Name and version of this server, and the extensions of the protocol that it speaks."""
        return _json({"name": "concord", "version": concord.__version__, "extensions": list(protocol.EXTENSIONS)})

    async def live(self, request: Request) -> Response:
        """The process answers."""
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        """200 as soon as there is a model to answer with, 503 before."""
        return await self._counted(request, "ready", self._ready(None, None))

    async def model_ready(self, request: Request, name: str) -> Response:
        """200 if the model can answer, 404 if it is not served here, 503 before its first snapshot."""
        return await self._counted(request, "ready", self._ready(name, None))

    async def version_ready(self, request: Request, name: str, version: str) -> Response:
        """200 if that version can answer: it is in service, or on the shelf."""
        return await self._counted(request, "ready", self._ready(name, version))

    async def model_metadata(self, request: Request, name: str) -> Response:
        """The model's inputs, outputs, classes, and the versions loaded now."""
        return await self._counted(request, "metadata", self._metadata(name, None))

    async def version_metadata(self, request: Request, name: str, version: str) -> Response:
        """The same for one version."""
        return await self._counted(request, "metadata", self._metadata(name, version))

    # --- predictions ----------------------------------------------------------------------------------------

    async def infer(self, request: Request, name: str) -> Response:
        """Answer a request of the Open Inference Protocol from the newest model."""
        return await self._counted(request, "infer", self._answer(request, _read_v2, name, None))

    async def infer_version(self, request: Request, name: str, version: str) -> Response:
        """Answer a request of the Open Inference Protocol from one version, if it is still on the shelf."""
        return await self._counted(request, "infer", self._answer(request, _read_v2, name, version))

    async def predict(self, request: Request) -> Response:
        """Predict from plain rows of numbers, or from a picture, with the newest model, or the query's `model`."""
        name = request.query_params.get("model") if request.scope["query_string"] else None
        return await self._counted(request, "predict", self._answer(request, _read_plain, name, None))

    # --- the repository: one model, in service or not -------------------------------------------------------

    async def index(self, request: Request) -> Response:
        """The one model that a site has, by the versions loaded now; with `{"ready": true}` only if it answers."""
        return await self._counted(request, "repository", self._index(request))

    async def load(self, request: Request, name: str) -> Response:
        """Take the model into service again; what it is comes from training, and cannot be given here."""
        return await self._counted(request, "repository", self._control(request, name, loaded=True))

    async def unload(self, request: Request, name: str) -> Response:
        """Take the model out of service until it is loaded: it is not ready, and answers 503."""
        return await self._counted(request, "repository", self._control(request, name, loaded=False))

    async def _index(self, request: Request) -> Response:
        body = await read_body(request, self._settings.max_body_bytes)
        only_ready = (parse_object(body) if body.strip() else {}).get("ready", False)
        if not isinstance(only_ready, bool):
            raise InputError("ready", "true or false")
        return _json([entry for entry in self._index_entries() if not only_ready or entry["state"] == "READY"])

    def _index_entries(self) -> list[dict[str, str]]:
        name, served = self.predictor.name, self.predictor.served
        if served is None:
            return [{"name": name, "version": "", "state": "UNAVAILABLE", "reason": "no snapshot yet"}]
        versions = [str(version) for version in self._versions.at_hand()]
        state, reason = ("READY", "") if self._loaded else ("UNAVAILABLE", "unloaded")
        return [{"name": name, "version": version, "state": state, "reason": reason} for version in versions]

    async def _control(self, request: Request, name: str, loaded: bool) -> Response:
        refusal = self.models.refusal(request)
        if refusal is not None:
            return refusal
        self._check_name(name)
        body = await read_body(request, self._settings.max_body_bytes)
        if loaded and (parse_object(body) if body.strip() else {}).get("parameters"):
            raise InputError("parameters", "nothing: a site's model comes from its training")
        self._loaded = loaded
        return _json({})

    # --- how an answer comes about --------------------------------------------------------------------------

    async def _counted(self, request: Request, route: str, work: Awaitable[Response]) -> Response:
        started = time.perf_counter()
        try:
            response = await work
        except ERRORS as error:
            response = _problem(error)
        seconds = time.perf_counter() - started
        self.state.observe(route, response.status_code, seconds)
        if self._tracing is not None and route in _TRACED:
            self._tracing.prediction(route, response.status_code, seconds, request.headers.get("traceparent", ""))
        return response

    async def _answer(self, request: Request, read: Read, name: str | None, version: str | None) -> Response:
        body = await read_body(request, self._settings.max_body_bytes)
        served = await self._find(name, version)
        aside = len(body) > self._settings.inline_bytes
        question = await self._do(aside, partial(read, request, body, served))
        inputs = question.inputs
        if isinstance(inputs, Pictures):
            inputs = await self._do(True, partial(inputs.decode, served.input_shape))
        prediction = await self._predict(request, served, inputs)
        if prediction is None:
            return Response(status_code=_GONE)
        if not prediction.finite:
            raise InputError(question.field, "values small enough for the model's outputs to be finite")
        reply = await self._do(aside, partial(question.reply, prediction))
        self.state.rows += len(inputs)
        headers = _origin(served)
        if reply.json_bytes is None:
            return Response(reply.body, headers=headers, media_type="application/json")
        headers[JSON_BYTES_HEADER] = str(reply.json_bytes)
        return Response(reply.body, headers=headers, media_type="application/octet-stream")

    async def _do(self, aside: bool, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work) if aside else work()

    async def _predict(self, request: Request, served: ServedModel, inputs: Tensor) -> Prediction | None:
        """The model's answer, or None if the caller left before it."""
        answer = self.batcher.submit(served, inputs, remote_address(request))
        if not self.batcher.crowded:
            return await answer  # it is computed next: too late to leave
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            answer.cancel()
            gone.cancel()

    async def _find(self, name: str | None, version: str | None) -> ServedModel:
        """The model that answers a request; the only place where it is chosen."""
        self._check_name(name)
        if not self._loaded:
            raise NoModelError("model", f"a model in service; POST /v2/repository/models/{self.predictor.name}/load")
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


def _read_v2(request: Request, body: bytes, served: ServedModel) -> Question:
    given = request.headers.get(JSON_BYTES_HEADER)
    if given is None:
        return protocol.read_request(body, served)
    if not (given.isascii() and given.isdecimal() and len(given) < 16 and int(given) <= len(body)):
        raise BodyError(JSON_BYTES_HEADER, f"how many bytes of the body are JSON, at most {len(body)}")
    return protocol.read_request(body, served, int(given))


def _read_plain(request: Request, body: bytes, served: ServedModel) -> Question:
    content_type = request.headers.get("content-type", "")
    kind = media_type(content_type)
    if kind == FORM_TYPE or kind.startswith("image/"):
        return plain.read_picture(picture_in(body, content_type), served, "body")
    return plain.read_request(body, served)


def _problem(error: ConcordError) -> Response:
    refusal = refusal_of(error)
    return _json(explain(error), headers_of(refusal), refusal.status)


def _origin(served: ServedModel) -> dict[str, str]:
    return {VERSION_HEADER: str(served.snapshot.version), ROUND_HEADER: str(served.snapshot.round)}


def _json(fields: object, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    return Response(encode(fields), status, headers, "application/json")
