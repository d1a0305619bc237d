"""The fleet's plain HTTP port: three questions of a kubelet, and the status."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from fastapi import FastAPI, Response

import concord
from concord.apps.health import NO
from concord.apps.metrics import add_metrics
from concord.telemetry.registry import Reading, Telemetry


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
    add_metrics(app, Telemetry("fleet", lambda: _read(fleet.status())))
    return app


def _read(status: Mapping[str, Any]) -> Iterator[Reading]:
    yield Reading("concord_fleet_leading", bool(status["leading"]))
    yield Reading("concord_fleet_has_leader", bool(status["leader"]))
    yield Reading("concord_fleet_members", sum(bool(site["member"]) for site in status["sites"].values()))
    yield Reading("concord_fleet_sites_ready", len(status["ready"]))
    yield Reading("concord_fleet_sites_waiting", len(status["waiting"]))
    yield Reading("concord_fleet_problems", len(status["problems"]))
    yield Reading("concord_fleet_failures", len(status["failures"]))
    if status["version"] is not None:
        yield Reading("concord_fleet_topology_version", status["version"])


def _json(code: int, fields: dict[str, object]) -> Response:
    return Response(json.dumps(fields), code, media_type="application/json")
