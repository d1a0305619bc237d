"""`concord doctor`: is this machine ready? Every finding that needs one names its remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from concord.cli import checks_machine, checks_network
from concord.cli.findings import Examination, Finding, Level, Patient
from concord.cli.options import AsJson, Overrides
from concord.cli.render import EXIT_ENVIRONMENT, console, print_json, table
from concord.errors import JobError
from concord.job import Job, JobFileError, load_job
from concord.settings import Settings, load_settings

_MARKS = {Level.OK: "ok", Level.WARN: "WARN", Level.FAIL: "FAIL"}

EXAMINATIONS: tuple[Examination, ...] = (
    checks_machine.check_python,
    checks_machine.check_torch,
    checks_machine.check_topology,
    checks_network.check_redis,
    checks_network.check_ports,
    checks_machine.check_data,
    checks_machine.check_disk,
    checks_machine.check_clock,
    checks_network.check_certificates,
    checks_network.check_secret,
    checks_network.check_peers,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    job: Annotated[Path | None, typer.Argument(metavar="[JOB]", help="A job to check for.")] = None,
    overrides: Overrides = None,
    base_port: Annotated[int | None, typer.Option(help="First of the ports that `up` would use.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check Python, torch, Redis, ports, data, clock, topology and security; exit 3 if anything fails."""
    findings = list(examine(job, overrides or (), os.environ, base_port))
    failed = any(finding.level is Level.FAIL for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": [finding.to_dict() for finding in findings]})
    else:
        _show(findings)
    if failed:
        raise typer.Exit(EXIT_ENVIRONMENT)


def _show(findings: list[Finding]) -> None:
    rows = [(_MARKS[one.level], one.subject, one.detail, one.remedy) for one in findings]
    console().print(table("", ("", "what", "found", "remedy"), rows))


def examine(
    job_file: Path | None, overrides: Sequence[str], environment: Mapping[str, str], base_port: int | None
) -> Iterator[Finding]:
    """All findings about this machine, its settings and, if given, its fitness for a job."""
    from concord.apps.local import BASE_PORT

    job, problems = _load(job_file, overrides)
    yield from problems
    try:
        settings = load_settings({}, environment)
    except JobError as error:
        yield Finding(Level.FAIL, "settings", str(error), "correct or unset the variable")
        settings = Settings()
    patient = Patient(job, settings, environment, BASE_PORT if base_port is None else base_port)
    for examination in EXAMINATIONS:
        yield from examination(patient)


def _load(job_file: Path | None, overrides: Sequence[str]) -> tuple[Job | None, list[Finding]]:
    if job_file is None:
        return None, []
    try:
        job = load_job(job_file, overrides)
    except JobFileError as error:
        return None, [Finding(Level.FAIL, "job", str(one), f"edit {job_file}") for one in error.problems]
    except JobError as error:
        return None, [Finding(Level.FAIL, "job", str(error), "give the path of a job file")]
    return job, [Finding(Level.OK, "job", f"{job_file} is valid")]
