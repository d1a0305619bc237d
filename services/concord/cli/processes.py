"""The commands that are a site's processes: flags and environment become a job and settings for `apps`."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Protocol, cast

import typer

from concord import logs
from concord.cli.options import LogFormat, LogLevel, Overrides
from concord.errors import JobError
from concord.job import Job, load_job
from concord.settings import Settings, load_settings
from concord.suggest import unknown


class Run(Protocol):
    """A process: returns when it was told to stop, or its work is done."""

    def __call__(self, job: Job, settings: Settings) -> None: ...


PROCESSES = {
    "trainer": ("concord.apps.trainer", "Train this site's model: steps, consensus, checkpoints, snapshots."),
    "exchange": ("concord.apps.exchange", "Exchange updates with the neighbours over HTTP."),
    "inference": ("concord.apps.inference", "Answer prediction requests with the newest model."),
    "site": ("concord.apps.combined", "Trainer, exchange and inference in one process, for a small machine."),
}

JobOption = Annotated[Path, typer.Option("--job", envvar="CONCORD_JOB", help="The job file (YAML).")]
Text = str | None


def register(app: typer.Typer) -> None:
    """Add one command per process."""
    for name, (module, text) in PROCESSES.items():
        app.command(name, help=text)(_command(name, module))


def _command(name: str, module: str) -> Callable[..., None]:
    def command(
        job: JobOption,
        overrides: Overrides = None,
        site: Annotated[Text, typer.Option(help="The site this process works for.")] = None,
        redis_url: Annotated[Text, typer.Option(help="The site's own Redis.")] = None,
        state_dir: Annotated[Text, typer.Option(help="Folder for checkpoints.")] = None,
        host: Annotated[Text, typer.Option(help="Address to listen on.")] = None,
        port: Annotated[Text, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
        threads: Annotated[Text, typer.Option(help="Processors that training may use.")] = None,
        topology: Annotated[Text, typer.Option(help="Membership document to follow while running.")] = None,
        join_timeout: Annotated[Text, typer.Option(help="Seconds a new site waits for its neighbours.")] = None,
        drain: Annotated[Text, typer.Option(help="Seconds that inference still answers once told to stop.")] = None,
        peers: Annotated[Text, typer.Option(help="Neighbours' URLs: N2=http://host:port,N3=...")] = None,
        secret_file: Annotated[Text, typer.Option(help="File with the federation's secret.")] = None,
        tls_dir: Annotated[Text, typer.Option(help="Folder with tls.crt, tls.key and ca.crt.")] = None,
        exchange_port: Annotated[Text, typer.Option(help="Port for neighbours, with --tls-dir.")] = None,
        connections: Annotated[Text, typer.Option(help="Connections that a port holds at most.")] = None,
        connections_per_address: Annotated[Text, typer.Option(help="Those from one remote address.")] = None,
        batch_rows: Annotated[Text, typer.Option(help="Rows that the model answers together at most.")] = None,
        queue_rows: Annotated[Text, typer.Option(help="Rows that may wait for the model.")] = None,
        queue_seconds: Annotated[Text, typer.Option(help="How long a request may wait for the model.")] = None,
        admin_token_file: Annotated[Text, typer.Option(help="File with the token of who may pin models.")] = None,
        log_format: LogFormat = None,
        log_level: LogLevel = None,
        insecure: Annotated[
            bool, typer.Option("--insecure", help="Do without certificates and without a secret.")
        ] = False,
    ) -> None:
        flags = {
            "site": site,
            "redis_url": redis_url,
            "state_dir": state_dir,
            "host": host,
            "port": port,
            "threads": threads,
            "topology": topology,
            "join_timeout": join_timeout,
            "drain": drain,
            "peers": peers,
            "secret_file": secret_file,
            "tls_dir": tls_dir,
            "exchange_port": exchange_port,
            "connections": connections,
            "connections_per_address": connections_per_address,
            "batch_rows": batch_rows,
            "queue_rows": queue_rows,
            "queue_seconds": queue_seconds,
            "admin_token_file": admin_token_file,
            "log_format": log_format,
            "log_level": log_level,
            "insecure": "true" if insecure else None,
        }
        settings = load_settings(flags, os.environ)
        logs.configure(settings.log_format, settings.log_level, site=settings.site, process=name)
        loaded = load_job(job, overrides or ())
        loaded.require_deployable()
        _check_names(loaded, settings)
        run = cast(Run, import_module(module).run)
        run(loaded, settings)

    return command


def _check_names(job: Job, settings: Settings) -> None:
    """JobError unless the site, and every peer, is one of the job's."""
    if not settings.site:
        raise JobError(f"no site is given: set --site or CONCORD_SITE to one of {', '.join(job.site_names)}")
    for name in (settings.site, *settings.peers):
        if name not in job.sites:
            raise JobError(unknown("site", name, job.site_names))
