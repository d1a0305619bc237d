"""`concord status`: how a running fleet is doing, asked from its sites."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import httpx
import typer
from rich.live import Live

from concord.cli.fleet_table import Status, fleet_table
from concord.cli.options import AsJson, Urls
from concord.cli.render import console, print_json
from concord.cli.runfile import require_run_file
from concord.errors import TransportError

_PATIENCE = 2.0
"""Seconds a site has to answer."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(
    url: Urls = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table fresh until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
) -> None:
    """Show a row per site of a running fleet; exit 1 if no site answers."""
    name, urls = _fleet(url or ())
    if watch and not as_json:
        _follow(name, urls, interval)
        return
    statuses, errors = ask_sites(urls)
    if as_json:
        print_json({"name": name, "sites": statuses, "errors": errors})
    else:
        console().print(fleet_table(name, statuses))
    if len(errors) == len(urls):
        raise TransportError(f"no site answers; the first: {next(iter(errors.values()))}")


def ask_sites(urls: Mapping[str, str]) -> tuple[dict[str, Status | None], dict[str, str]]:
    """The status of each site, all asked at once, and what went wrong with those whose status is None."""
    with (
        ThreadPoolExecutor(max_workers=min(32, len(urls))) as pool,
        httpx.Client(timeout=_PATIENCE) as client,
    ):
        answers = dict(zip(urls, pool.map(lambda url: _ask(client, url), urls.values()), strict=True))
    errors = {site: answer for site, answer in answers.items() if isinstance(answer, str)}
    return {site: None if isinstance(found, str) else found for site, found in answers.items()}, errors


def _fleet(urls: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """The name of the fleet and the URL of each site; those given by URL alone go by it."""
    if urls:
        return "", {url: url.rstrip("/") for url in urls}
    run = require_run_file(os.environ)
    return run.name, run.sites


def _ask(client: httpx.Client, url: str) -> Status | str:
    """A site's status, or one sentence that says why there is none."""
    try:
        answer = client.get(f"{url}/v1/status")
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{url} cannot be reached: {error}"
    except ValueError:
        return f"{url} answered {answer.status_code} and not with JSON"
    if not answer.is_success or "progress" not in found:
        return f"{url} answered {answer.status_code}: its trainer has not reported yet"
    return dict(found)


def _follow(name: str, urls: Mapping[str, str], interval: float) -> None:
    try:
        with Live(console=console(), auto_refresh=False) as live:
            while True:
                live.update(fleet_table(name, ask_sites(urls)[0]), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return
