"""`concord predict`: ask one site's model about one input, or about a sample of the task's test set."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from concord.cli.options import AsJson
from concord.cli.render import console, print_json, table
from concord.cli.runfile import require_run_file
from concord.errors import ConcordError, InputError, JobError, NoModelError, TransportError
from concord.job import load_job
from concord.suggest import unknown

_PATIENCE = 10.0
"""Seconds a site has to answer."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict")(predict)


def predict(
    given: Annotated[
        str | None, typer.Argument(metavar="INPUT", help="A JSON file, '-' for stdin, or JSON itself.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The base URL of the site to ask.")] = None,
    site: Annotated[str | None, typer.Option(help="The site to ask, of the fleet that runs here.")] = None,
    sample: Annotated[int | None, typer.Option(min=0, help="Ask about this sample of the test set.")] = None,
    job: Annotated[
        Path | None, typer.Option(help="The job whose test set --sample means. Default: that of `up`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a site what it makes of an input: rows of numbers as JSON, or --sample K."""
    if (given is None) == (sample is None):
        raise JobError("give either an INPUT or --sample K")
    truth = None
    if sample is not None:
        inputs, truth = _sample(job, sample)
    else:
        inputs = read_inputs(str(given))
    answer = ask(address(url, site), inputs)
    if as_json:
        print_json(answer if truth is None else {**answer, "true": truth})
        return
    _show(answer, truth)


def read_inputs(given: str) -> object:
    """The inputs in a file, on stdin ('-') or in the text itself; `{"inputs": ...}` and bare rows alike.

    InputError if it is not JSON.
    """
    text = sys.stdin.read() if given == "-" else given
    try:
        if given != "-" and not given.lstrip().startswith(("[", "{")):
            text = Path(given).read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise InputError("INPUT", f"{given} is neither JSON nor a file: {error.strerror}") from error
    except ValueError as error:
        raise InputError("INPUT", f"should be JSON, such as [[0.0, 0.5, 1.0]]: {error}") from error
    return found["inputs"] if isinstance(found, dict) and "inputs" in found else found


def ask(url: str, inputs: object) -> dict[str, Any]:
    """The site's answer; InputError or NoModelError as the site says, TransportError if there is none."""
    try:
        answer = httpx.post(f"{url}/v1/predict", json={"inputs": inputs}, timeout=_PATIENCE)
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TransportError(f"{url} cannot be reached: {error}") from error
    except ValueError as error:
        raise TransportError(f"{url} answered {answer.status_code} and not with JSON") from error
    if not answer.is_success:
        raise _refusal(url, answer.status_code, found)
    return dict(found)


def _refusal(url: str, status: int, body: object) -> ConcordError:
    if not isinstance(body, Mapping):
        return TransportError(f"{url} answered {status}")
    if "expected" not in body:
        return TransportError(f"{url} answered {status}: {body.get('error', body)}")
    kind = NoModelError if status in (httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE) else InputError
    return kind(str(body.get("field", "inputs")), str(body["expected"]))


def address(url: str | None, site: str | None) -> str:
    """The base URL of the site that is meant: as given, or of the fleet that runs here."""
    if url is not None:
        return url.rstrip("/")
    run = require_run_file(os.environ)
    if site is None:
        site = next(iter(run.sites))
    if site not in run.sites:
        raise JobError(unknown("site", site, run.sites))
    return run.sites[site]


def _sample(job: Path | None, index: int) -> tuple[object, str]:
    from concord.cli.data import held_out_sample  # takes torch

    inputs, truth = held_out_sample(load_job(job or require_run_file(os.environ).job), index)
    return [inputs.tolist()], truth


def _show(answer: Mapping[str, Any], truth: str | None) -> None:
    rows = [(one.get("label", "-"), one.get("probability"), truth or "-") for one in answer["predictions"]]
    model = answer["model"]
    title = f"{model['name']}, version {model['version']}, round {model['round']}"
    console().print(table(title, ("predicted", "probability", "true"), rows))
