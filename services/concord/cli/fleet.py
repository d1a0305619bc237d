"""`concord fleet`: looks after the topology of a federation in a Kubernetes namespace."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated, Protocol, cast

import typer

from concord import logs
from concord.cli.options import LogFormat, LogLevel
from concord.errors import EnvironmentProblem
from concord.fleet.settings import FleetSettings, load_fleet_settings

Text = str | None


class Run(Protocol):
    """The process: returns when it was told to stop."""

    def __call__(self, settings: FleetSettings) -> None: ...


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fleet")(fleet)


def fleet(
    federation: Annotated[Text, typer.Option(help="The job's name, which the sites carry as a label.")] = None,
    namespace: Annotated[Text, typer.Option(help="Where the sites are; default: this pod's own.")] = None,
    config_map: Annotated[
        Text, typer.Option(help="The ConfigMap to write; default: FEDERATION-topology. Its status: NAME-status.")
    ] = None,
    lease: Annotated[Text, typer.Option(help="The Lease of the leader; default: FEDERATION-fleet.")] = None,
    degree: Annotated[Text, typer.Option(help="Most neighbours of a site, at least 2; default: 4.")] = None,
    grace: Annotated[
        Text, typer.Option(help="Seconds not ready until a site leaves; default: 600. 0: never for that.")
    ] = None,
    identity: Annotated[Text, typer.Option(help="This replica's name, of its own; default: the host's.")] = None,
    host: Annotated[Text, typer.Option(help="Address to listen on for health and status.")] = None,
    port: Annotated[Text, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Keep a federation's topology in Kubernetes: connected, of bounded degree, as sites come and go.

    Follows the Services that carry the federation's label, decides who exchanges with whom with the fewest edges
    changed, and writes it into a ConfigMap that the sites follow. Replicas elect a leader. Each flag has a variable,
    CONCORD_FLEET_DEGREE for --degree; those of the address and of the log are as everywhere (CONCORD_PORT).
    """
    flags = {
        "federation": federation,
        "namespace": namespace,
        "config_map": config_map,
        "lease": lease,
        "degree": degree,
        "grace": grace,
        "identity": identity,
        "host": host,
        "port": port,
        "log_format": log_format,
        "log_level": log_level,
    }
    settings = load_fleet_settings(flags, os.environ)
    logs.configure(settings.log_format, settings.log_level, process="fleet")
    _process()(settings)


def _process() -> Run:
    try:
        import_module("kubernetes")
    except ImportError as error:
        raise EnvironmentProblem("the fleet needs kubernetes: pip install 'concord-edge[cluster]'") from error
    return cast(Run, import_module("concord.apps.fleet").run)
