"""`concord models`: the versions of a site's model, and who of them is served."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from concord.cli.options import AsJson
from concord.cli.predict import address
from concord.cli.render import console, print_json, table
from concord.errors import IdentityError, JobError, NoModelError, TransportError
from concord.settings import Secret, load_settings

_PATIENCE = 15.0
"""Seconds a site has to answer; it waits up to 5 until a change has come about."""
_COLUMNS = ("version", "state", "round", "step", "age", "metrics", "apart", "heard from", "shadow")

Version = Annotated[int, typer.Argument(min=0, help="The version, as in `concord models list`.", show_default=False)]
Url = Annotated[str | None, typer.Option(help="The base URL of the site.")]
Site = Annotated[str | None, typer.Option(help="The site, of the fleet that runs here.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File with the site's admin token; or CONCORD_ADMIN_TOKEN_FILE, or CONCORD_ADMIN_TOKEN."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    models = typer.Typer(no_args_is_help=True, help="List, pin, roll back and promote the versions of a site's model.")
    models.command("list")(show)
    models.command("pin")(pin)
    models.command("unpin")(unpin)
    models.command("rollback")(rollback)
    models.command("promote")(promote)
    app.add_typer(models, name="models")


def show(url: Url = None, site: Site = None, as_json: AsJson = False) -> None:
    """Every version on the shelf of a site, the one in service first."""
    answer = _ask("GET", f"{address(url, site)}/v1/models")
    if as_json:
        print_json(answer)
        return
    models = answer["models"]
    follows = "" if answer["following"] else ", held: newer ones are not followed"
    title = f"{models[0]['name']}{follows}" if models else "no version yet"
    console().print(table(title, _COLUMNS, [_row(model) for model in models]))
    for model in models:
        if model["reason"]:
            console().print(f"{model['version']} is {model['state']}: {model['reason']}", markup=False)
    if "problem" in answer:
        console().print(answer["problem"], markup=False)


def pin(
    version: Version, url: Url = None, site: Site = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Keep a version until it is unpinned; the one in service then stays in service, too."""
    _change(f"{version}/pin", url, site, token_file, as_json)


def unpin(
    version: Version, url: Url = None, site: Site = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Let a pinned version go; if it was held in service, newer ones are followed again."""
    _change(f"{version}/unpin", url, site, token_file, as_json)


def rollback(
    version: Annotated[int | None, typer.Argument(min=0, help="By default the next older one.")] = None,
    url: Url = None,
    site: Site = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Serve an older version, and stay with it until it is unpinned or another is promoted."""
    _change("rollback" if version is None else f"{version}/rollback", url, site, token_file, as_json)


def promote(
    version: Version, url: Url = None, site: Site = None, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Serve a newer version, whatever the gate says, and follow what is published from now on."""
    _change(f"{version}/promote", url, site, token_file, as_json)


def _change(path: str, url: str | None, site: str | None, token_file: Path | None, as_json: bool) -> None:
    token = admin_token(token_file, os.environ)
    headers = {} if token is None else {"Authorization": f"Bearer {token.value.decode()}"}
    answer = _ask("POST", f"{address(url, site)}/v1/models/{path}", headers)
    if as_json:
        print_json(answer)
        return
    model = answer["model"]
    marks = [word for word in ("pinned", "held") if model.get(word)]
    console().print(f"version {model['version']}: {', '.join([model.get('state', 'gone'), *marks])}", markup=False)
    follows = "newer ones are followed" if answer["following"] else "newer ones are not followed"
    console().print(f"in service: version {answer['served']}; {follows}", markup=False)


def admin_token(file: Path | None, environment: Mapping[str, str]) -> Secret | None:
    """The admin token of the sites, from a file or the environment; None if there is none."""
    flags = {"admin_token_file": None if file is None else str(file)}
    ours = {name: text for name, text in environment.items() if name.startswith("CONCORD_ADMIN_TOKEN")}
    return load_settings(flags, ours).admin_token


def _ask(method: str, url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    try:
        answer = httpx.request(method, url, headers=headers, timeout=_PATIENCE)
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TransportError(f"{url} cannot be reached: {error}") from error
    except ValueError as error:
        raise TransportError(f"{url} answered {answer.status_code} and not with JSON") from error
    if answer.is_success and isinstance(found, dict):
        return found
    said = str(found.get("error", found)) if isinstance(found, Mapping) else str(found)
    match answer.status_code:
        case httpx.codes.UNAUTHORIZED | httpx.codes.FORBIDDEN:
            raise IdentityError(said)
        case httpx.codes.NOT_FOUND:
            raise NoModelError("version", said)
        case httpx.codes.CONFLICT:
            raise JobError(said)
    raise TransportError(f"{url} answered {answer.status_code}: {said}")


def _row(model: Mapping[str, Any]) -> tuple[object, ...]:
    lineage, compared = model["lineage"], model["shadow"]
    marks = [word for word in ("pinned", "held") if model[word]]
    heard = lineage["heard"]
    return (
        model["version"],
        ", ".join([model["state"], *marks]),
        model["round"],
        model["step"],
        f"{model['age_seconds']:.0f} s",
        " ".join(f"{name} {value:.4g}" for name, value in model["metrics"].items() if value is not None),
        lineage["consensus_distance"],
        " ".join(f"{site}@{one['round']}" for site, one in heard.items()) or "-",
        _disagreement(compared),
    )


def _disagreement(compared: Mapping[str, Any] | None) -> str:
    if compared is None or not compared["rows"]:
        return "-"
    return f"{100 * compared['different_winners']:.1f} % differ of {compared['rows']}"
