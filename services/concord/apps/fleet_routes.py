"""The fleet's plain HTTP port: three questions of a kubelet, and the status."""

from __future__ import annotations

import json
from typing import Protocol

from fastapi import FastAPI, Response

import concord
from concord.apps.health import NO


class Answers(Protocol):
    """What the routes ask."""

    @property
    def started(self) -> bool: ...

    @property
    def alive(self) -> bool: ...

    def status(self) -> dict[str, object]: ...


def create_app(fleet: Answers) -> FastAPI:
    """`/startupz` and `/readyz` once the sites were listed, leader or not; `/healthz` while all threads work."""

    def startup() -> Response:
        return _json(200 if fleet.started else 503, {"started": fleet.started})

    def live() -> Response:
        return _json(200 if fleet.alive else 503, {"live": fleet.alive})

    def ready() -> Response:
        status = fleet.status()
        return _json(
            200 if fleet.started else 503,
            {"ready": fleet.started, "leading": status["leading"], "failures": status["failures"]},
        )

    def status() -> Response:
        return _json(200, fleet.status())

    app = FastAPI(title="Concord fleet", version=concord.__version__)
    for path, answer in (("/startupz", startup), ("/healthz", live), ("/readyz", ready)):
        app.add_api_route(path, answer, methods=["GET"], tags=["health"], responses=NO)
    app.add_api_route("/v1/status", status, methods=["GET"], tags=["fleet"])
    return app


def _json(code: int, fields: dict[str, object]) -> Response:
    return Response(json.dumps(fields), code, media_type="application/json")
