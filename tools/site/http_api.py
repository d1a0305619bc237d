"""The HTTP API as Markdown, out of the OpenAPI documents that the apps themselves make. Opens no socket."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from concord.apps import combined, fleet_routes
from concord.apps.exchange import create_exchange, exchange_settings
from concord.apps.health import TrainerHealth
from concord.apps.inference import create_inference
from concord.apps.members import Members
from concord.apps.trainer import job_predictor, job_task
from concord.job import parse_job
from concord.mailbox.memory import MemoryMailbox
from concord.serving.snapshots import RedisShelf
from concord.settings import Settings

Document = Mapping[str, Any]

_JOB = "name: digits\ntask: digits\nsites: {N1: {}, N2: {url: 'http://n2:8080'}}\n"
_TITLES = {
    "inference": "Inference",
    "exchange": "Exchange, between sites",
    "health": "Health, of every process",
    "fleet": "The fleet",
    "metrics": "Metrics, of every process",
}


def site_document() -> Document:
    """The OpenAPI document of a site that does everything in one process, so that it has all routes."""
    job = parse_job(_JOB)
    settings = Settings(site="N1", insecure=True)
    mailbox = MemoryMailbox(time.time)
    exchange = create_exchange(mailbox, exchange_settings(job, settings, Members(job, settings)))
    shelf = RedisShelf(settings.redis_url, job.name, settings.site, job.serving.keep)
    inference = create_inference(job_predictor(job, job_task(job)), shelf)
    health = TrainerHealth(None, mailbox, job.training.pace)
    return combined.create_app(exchange, inference, health).openapi()


def fleet_document() -> Document:
    """The OpenAPI document of `concord fleet`."""
    return fleet_routes.create_app(None).openapi()


def markdown() -> str:
    """A section per process, a part per route with its examples."""
    fleet = {path: item for path, item in fleet_document()["paths"].items() if path == "/v1/status"}
    groups: dict[str, list[str]] = {tag: [] for tag in _TITLES}
    for paths in (site_document()["paths"], fleet):
        for path, methods in paths.items():
            for method, operation in methods.items():
                tag = operation.get("tags", ["health"])[0]
                groups.setdefault(tag, []).extend(_operation(method, path, operation))
    return "\n".join(
        line for tag, lines in groups.items() for line in (f"## {_TITLES.get(tag, tag.capitalize())}", "", *lines)
    )


def _operation(method: str, path: str, operation: Document) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    if description := operation.get("description"):
        yield f"{description}\n"
    if body := operation.get("requestBody"):
        yield from _content("Request", body)
    rows = []
    for status, response in operation.get("responses", {}).items():
        if "application/json" in response.get("content", {}) and status.startswith("2"):
            yield from _content(f"Answer {status}", response)
        elif text := response.get("description"):
            rows.append(f"| {status} | {text} |")
    if rows and not (len(rows) == 1 and "Successful Response" in rows[0]):
        yield "\n".join(["| status | when |", "|---|---|", *rows, ""])


def _content(title: str, part: Document) -> Iterator[str]:
    yield f"**{title}.** {part.get('description', '')}\n".replace("Successful Response", "")
    example = part.get("content", {}).get("application/json", {}).get("example")
    if example is not None:
        yield f"```json\n{_dumped(example)}\n```\n"


def _dumped(example: object) -> str:
    """JSON with lists of numbers or words on one line."""
    return re.sub(r"\[([^\[\]{}]*)\]", lambda match: f"[{' '.join(match[1].split())}]", json.dumps(example, indent=2))
