"""Three questions of whoever runs a process, on three routes: has it started, is it alive, can it do its work?

A process that has started late or is not ready must be left alone; one that is not alive must be started again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import FastAPI, Request, Response

import concord
from concord.apps.metrics import add_metrics
from concord.errors import MailboxError
from concord.site.loop import Trainer
from concord.site.ports import Mailbox
from concord.telemetry.registry import Source, Telemetry

STALL_SECONDS = 300.0
"""Beyond its pace: a trainer whose loop has not turned for so long hangs. A step of a large model may take minutes."""

NO: dict[int | str, dict[str, Any]] = {503: {"description": "no, and why not"}}
"""What the OpenAPI page says of the other answer."""
Question = Callable[[Request], Awaitable[Response]]


def add_health(app: FastAPI, started: Question, live: Question, ready: Question) -> None:
    """Add the three routes."""
    for path, question in (("/startupz", started), ("/healthz", live), ("/readyz", ready)):
        app.add_api_route(path, question, methods=["GET"], tags=["health"], responses=NO)


def answer(name: str, yes: bool, detail: str = "") -> Response:
    """200 for yes, 503 for no, and why."""
    fields: dict[str, object] = {name: yes} | ({"detail": detail} if detail else {})
    return Response(json.dumps(fields), 200 if yes else 503, media_type="application/json")


class TrainerHealth:
    """The answers of a trainer, whose loop runs in another thread."""

    def __init__(
        self, trainer: Trainer, mailbox: Mailbox, pace: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._trainer = trainer
        self._mailbox = mailbox
        self._patience = STALL_SECONDS + pace
        self._clock = clock

    def app(self, sources: Iterable[Source] = ()) -> FastAPI:
        """An app of these routes, the status and the metrics of `sources`, for a process that serves nothing else."""
        app = FastAPI(title="Concord trainer", version=concord.__version__)
        add_health(app, self.started, self.live, self.ready)
        app.add_api_route("/v1/status", self.status, methods=["GET"], tags=["trainer"])
        add_metrics(app, Telemetry("trainer", *sources))
        return app

    async def started(self, request: Request) -> Response:
        """200 once the newest checkpoint is loaded."""
        return answer("started", self._trainer.booted)

    async def live(self, request: Request) -> Response:
        """200 while the loop turns."""
        still = self._clock() - self._trainer.alive_at
        return answer("live", still < self._patience, f"no step for {still:.0f} s" if still > self._patience else "")

    async def ready(self, request: Request) -> Response:
        """200 if it trains, or waits to, and its mailbox can be reached."""
        try:
            await self._mailbox.read_note("")
        except MailboxError as error:
            return answer("ready", False, str(error))
        return answer("ready", self._trainer.booted)

    async def status(self, request: Request) -> Response:
        """What the trainer knows of itself and its edges."""
        return Response(self._trainer.status, media_type="application/json")
