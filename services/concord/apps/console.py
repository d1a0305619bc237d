"""The console's process: a page that shows a fleet live, and what it needs. The picture is in `concord.console`.

Browsers never meet the sites: this process asks the sites, tells all browsers by server-sent events, and passes
predictions on. It changes nothing at a site.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import StreamingResponse

import concord
from concord.apps.bare_routes import bare_router, read_body
from concord.apps.console_page import HEADERS, Page
from concord.apps.metrics import add_metrics
from concord.apps.serve import Server, bind
from concord.apps.serve import run as serve_process
from concord.console.feed import Feed
from concord.console.fleet_view import FleetView, Json
from concord.console.gathering import Pacer, ask_all
from concord.console.places import Place
from concord.console.recording import Recording
from concord.crew import Crew
from concord.errors import BodyError, BodyTooLargeError, TransportError
from concord.telemetry.registry import Reading, Telemetry
from concord.transport.site_client import SiteClient

log = logging.getLogger(__name__)

BROWSERS = 64
"""Browsers that may look at the same time."""
PREDICTIONS = 8
"""Predictions under way at the same time."""
LONGEST_INPUT = 1 << 20
"""Bytes of a request for a prediction."""
_PATIENCE = 10.0
"""Seconds a site has to predict."""
_HEARTBEAT = 15.0
"""Seconds of silence after which a browser is told that the line is still there."""


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """`port` 0 takes a free one. `hosts` are the names a browser may call it by; none: any.

    `reference` is a run to hold this one against, or `reference_places` another fleet that runs now.
    """

    places: tuple[Place, ...]
    title: str = ""
    host: str = "127.0.0.1"
    port: int = 8090
    hosts: tuple[str, ...] = ()
    reference: Recording | None = None
    reference_places: tuple[Place, ...] = ()
    tls: ssl.SSLContext | None = field(default=None, repr=False)


def run(settings: ConsoleSettings) -> None:
    """Serve the console until SIGTERM or SIGINT."""
    console = Console(settings)
    serve_process(console.server(), at_end=console.close)


class Console:
    """One fleet's console."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        self._places = {place.name: place for place in settings.places}
        self._client = SiteClient(tls=settings.tls)
        self._view = FleetView(self._places)
        self._other = FleetView([one.name for one in settings.reference_places] or ["none"])
        self._feed = Feed(secrets.token_hex(4))
        self._bell = asyncio.Event()
        self._pacer = Pacer(len(self._places), lambda: self._browsers > 0)
        self._predictions = asyncio.Semaphore(PREDICTIONS)
        self._page = Page.load()
        self._began, self._began_at = time.monotonic(), time.time()
        self._browsers = 0
        self._stopping = False
        self._looked = False
        self._silent = 0

    def server(self) -> Server:
        """The server of it, on a bound port."""
        return Server(self.app(), bind(self._settings.host, self._settings.port), on_stop=self._release, grace=1)

    def app(self) -> FastAPI:
        """The routes, and the gathering behind them for as long as the app runs."""
        app = FastAPI(
            title="Concord console", version=concord.__version__, lifespan=self._running, docs_url=None, redoc_url=None
        )
        router = bare_router()
        router.add_api_route("/", self.page, methods=["GET"])
        router.add_api_route("/page/{name}", self.page, methods=["GET"])
        router.add_api_route("/api/events", self.events, methods=["GET"])
        router.add_api_route("/api/fleet", self.fleet, methods=["GET"])
        router.add_api_route("/api/recording", self.recording, methods=["GET"])
        router.add_api_route("/api/sites/{site}/models", self.models, methods=["GET"])
        router.add_api_route("/api/sites/{site}/predict", self.predict, methods=["POST"])
        app.include_router(router)
        for path, endpoint in (("/startupz", self.started), ("/healthz", self.live), ("/readyz", self.started)):
            app.add_api_route(path, endpoint, methods=["GET"], tags=["health"])
        add_metrics(app, Telemetry("console", self._read))
        if self._settings.hosts:
            # A page of elsewhere whose name was made to mean this machine must not get at the sites.
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(self._settings.hosts), www_redirect=False)
        return app

    async def close(self) -> None:
        """Close the connections to the sites."""
        await self._client.close()

    # --- gathering --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _running(self, app: FastAPI) -> AsyncIterator[None]:
        crew = Crew()
        crew.add(self._gather())
        try:
            yield
        finally:
            await crew.dismiss()
            await self.close()

    async def _gather(self) -> None:
        while True:
            began = time.monotonic()
            await self._look()
            await self._pacer.wait(time.monotonic() - began)

    async def _look(self) -> None:
        answers = await ask_all(self._client, self._settings.places, TransportError)
        others = await ask_all(self._client, self._settings.reference_places, TransportError)
        self._looked = True
        self._silent = sum(isinstance(answer, str) for answer in answers.values())
        at = self._now
        change = self._view.take(answers, at) or {}
        if others and (other := self._other.take(others, at)) and other["points"]:
            change = {"at": round(at, 2), **change, "reference_points": other["points"]}
        if change:
            self._feed.publish("delta", _dump(change))
            self._bell.set()
            self._bell = asyncio.Event()

    def _read(self) -> Iterator[Reading]:
        yield Reading("concord_console_listeners", self._browsers)
        yield Reading("concord_console_sites", len(self._places))
        yield Reading("concord_console_sites_unreachable", self._silent)

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    def _release(self) -> None:
        self._stopping = True
        self._bell.set()

    # --- routes -----------------------------------------------------------------------------------------------

    async def page(self, request: Request, name: str = "index.html") -> Response:
        """A file of the page."""
        return self._page.answer(name, request.headers.get("if-none-match"))

    async def started(self) -> Response:
        """200 once all sites were asked for the first time."""
        return Response(_dump({"started": self._looked}), 200 if self._looked else 503, media_type="application/json")

    async def live(self) -> Response:
        """The process answers."""
        return Response(_dump({"live": True}), media_type="application/json")

    async def fleet(self, request: Request) -> Response:
        """The whole picture as JSON, for scripts."""
        return Response(_dump(self._picture()), headers=HEADERS, media_type="application/json")

    async def recording(self, request: Request) -> Response:
        """This run so far, to be a reference of another."""
        reports = [report for report in self._view.reports.values() if report.federation]
        first = reports[0] if reports else None
        recorded = Recording(
            name=self._title,
            algorithm=first.algorithm if first else "",
            metric=first.metric if first else "accuracy",
            sites={site: points for site, points in self._view.curves.items() if points},
            pooled=self._settings.reference.pooled if self._settings.reference else (),
        )
        headers = {**HEADERS, "content-disposition": 'attachment; filename="concord-run.json"'}
        return Response(recorded.to_json(), headers=headers, media_type="application/json")

    async def events(self, request: Request) -> Response:
        """Server-sent events: `snapshot` with everything, then `delta`s; or only those missed, by Last-Event-ID."""
        if self._browsers >= BROWSERS:
            return _problem(503, f"{BROWSERS} browsers look already", {"retry-after": "10"})
        stream = self._stream(request.headers.get("last-event-id"))
        return StreamingResponse(stream, headers=HEADERS | {"x-accel-buffering": "no"}, media_type="text/event-stream")

    async def models(self, request: Request, site: str) -> Response:
        """What a site serves: shape of the input, classes, version."""
        return await self._pass_on("GET", site, "/v1/models", None)

    async def predict(self, request: Request, site: str) -> Response:
        """A site's prediction."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _problem(415, "content-type should be application/json")
        try:
            body = await read_body(request, LONGEST_INPUT)
        except BodyTooLargeError as error:
            return _problem(413, f"a request may have {error.expected}")
        except BodyError as error:
            return _problem(400, str(error))
        return await self._pass_on("POST", site, "/v1/predict", body)

    # --- what they do -----------------------------------------------------------------------------------------

    async def _stream(self, last: str | None) -> AsyncIterator[str]:
        self._browsers += 1
        try:
            if self._browsers == 1:
                self._pacer.hurry()
            yield "retry: 1000\n\n"
            number = self._feed.number_of(last)
            while not self._stopping:
                bell = self._bell
                missed = None if number is None else self._feed.after(number)
                number = self._feed.number
                if missed is None:
                    picture = _dump(self._picture())
                    yield f"id: {self._feed.position}\nevent: snapshot\ndata: {picture}\n\n"
                for message in missed or ():
                    yield message.to_sse()
                if not await _rings(bell, _HEARTBEAT):
                    yield ": still here\n\n"
        finally:
            self._browsers -= 1

    def _picture(self) -> Json:
        return {
            "version": concord.__version__,
            "title": self._title,
            "began_at": self._began_at,
            "reference": self._reference(),
            **self._view.picture(self._now),
        }

    @property
    def _title(self) -> str:
        known = (report.federation for report in self._view.reports.values())
        return self._settings.title or next(filter(None, known), "")

    def _reference(self) -> Json | None:
        live = self._settings.reference_places
        recorded = self._settings.reference or (Recording("") if live else None)
        if recorded is None:
            return None
        reference: Json = json.loads(recorded.to_json())
        reference |= {"mean": recorded.mean, "ends_only": recorded.ends_only, "live": bool(live)}
        if live:
            report = next((one for one in self._other.reports.values() if one.algorithm), None)
            reference["sites"] = self._other.curves
            reference["algorithm"] = report.algorithm if report else ""
        reference["name"] = recorded.name or reference["algorithm"] or "the other fleet"
        return reference

    async def _pass_on(self, method: str, site: str, path: str, body: bytes | None) -> Response:
        place = self._places.get(site)
        if place is None:
            return _problem(404, f"no site {site[:64]!r} is looked at here")
        if self._predictions.locked():
            return _problem(429, f"{PREDICTIONS} predictions are under way", {"retry-after": "1"})
        async with self._predictions:
            try:
                found = await self._client.fetch(method, place.predict + path, body, timeout=_PATIENCE)
            except TransportError as error:
                return _problem(502, str(error))
        return Response(found.body, found.status, HEADERS, "application/json")


async def _rings(bell: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return False
    return True


def _dump(fields: Json) -> str:
    return json.dumps(fields, separators=(",", ":"))


def _problem(status: int, error: str, headers: dict[str, str] | None = None) -> Response:
    return Response(_dump({"error": error}), status, {**HEADERS, **(headers or {})}, "application/json")
