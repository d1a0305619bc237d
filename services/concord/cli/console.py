"""`concord console`: a page in the browser that shows a running fleet."""

from __future__ import annotations

import os
import ssl
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from concord import logs
from concord.cli.options import LogFormat, LogLevel, read_log_settings
from concord.cli.runfile import require_run_file
from concord.console.places import Place, parse_sites, places
from concord.console.recording import Recording, read_recording
from concord.errors import CertificateError, JobError

PORT = 8090
_LOOPBACK = ("127.0.0.1", "localhost")

List = list[str] | None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("console")(console)


def console(
    sites: Annotated[
        List, typer.Option(help="N1=http://host:port,N2=...; default: the fleet that `up` runs here.")
    ] = None,
    predict_at: Annotated[
        List, typer.Option(help="N1=http://host:port,...: where predictions are answered, if elsewhere.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = PORT,
    allow_host: Annotated[
        List, typer.Option(help="A name that browsers may call it by; default: any, on loopback its names.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="A recorded run to hold this one against; FILE#2 is point 2 of a sweep.")
    ] = None,
    reference_sites: Annotated[
        List, typer.Option(help="Another fleet that runs now, to hold this one against.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="File of the CAs that https:// addresses are checked with.")] = None,
    title: Annotated[str, typer.Option(help="What the page is headed; default: the federation's name.")] = "",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Show a running fleet as a page in the browser: topology, accuracy, events, and predictions to try.

    Asks the sites for their status and passes predictions on; changes nothing. The page has no login: on an address
    beyond loopback, put what checks people in front of it.
    """
    said = read_log_settings(log_format, log_level, os.environ)
    logs.configure(said.log_format, said.log_level, process="console")
    if reference is not None and reference_sites:
        raise JobError("give --reference or --reference-sites, not both")
    looked_at = _places(sites or (), predict_at or ())
    held_against = read_reference(reference) if reference is not None else None
    from concord.apps.console import Console, ConsoleSettings
    from concord.apps.serve import run

    made = Console(
        ConsoleSettings(
            places=looked_at,
            title=title,
            host=host,
            port=port,
            hosts=tuple(allow_host or (_LOOPBACK if host in _LOOPBACK else ())),
            reference=held_against,
            reference_places=places(parse_sites(reference_sites, "--reference-sites")) if reference_sites else (),
            tls=None if ca is None else _trust(ca),
        )
    )
    server = made.server()
    typer.echo(f"{len(looked_at)} sites at {server.url}/ (Ctrl-C stops)")
    if open_browser:
        webbrowser.open(server.url)
    run(server, at_end=made.close)


def read_reference(given: str) -> Recording:
    """The recorded run in a file; after `#`, the point of a sweep that is meant. JobError if it cannot be had."""
    path, _, number = given.partition("#")
    if number and not (number.isascii() and number.isdecimal()):
        raise JobError(f"--reference has {number!r} after the '#'; it should be the number of a point, from 0")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"--reference {path} cannot be read: {error}") from error
    return read_recording(text, path, int(number or 0))


def _places(sites: Sequence[str], predict_at: Sequence[str]) -> tuple[Place, ...]:
    urls = parse_sites(sites, "--sites") if sites else dict(require_run_file(os.environ).sites)
    return places(urls, parse_sites(predict_at, "--predict-at"))


def _trust(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"--ca {ca} cannot be used: {error}; it should be PEM certificates of CAs") from error
