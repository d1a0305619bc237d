"""The route `/metrics` of every process, on its plain port: what Prometheus reads."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response

from concord.telemetry.registry import Telemetry

_DOCS: dict[int | str, dict[str, Any]] = {
    200: {"description": "the metrics, in Prometheus' text format or as OpenMetrics", "content": {"text/plain": {}}}
}


def add_metrics(app: FastAPI, telemetry: Telemetry) -> None:
    """Add the route."""

    async def metrics(request: Request) -> Response:
        """What this process counts, for Prometheus."""
        body, content_type = telemetry.expose(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    app.add_api_route("/metrics", metrics, methods=["GET"], tags=["metrics"], responses=_DOCS)
