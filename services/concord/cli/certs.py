"""`concord certs`: the CA of a federation and its sites' certificates, in folders or in a Kubernetes namespace."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from concord.cli.options import AsJson
from concord.cli.render import EXIT_OTHER, console, print_json, table
from concord.errors import CertificateError, EnvironmentProblem, JobError

if TYPE_CHECKING:
    from concord.certificates import Authority, Wanted

CA_CERTIFICATE, CA_KEY, CA_REVOKED = "ca.crt", "ca.key", "ca.crl"
_FEDERATION = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SITE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_SECRET = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")

Federation = Annotated[str, typer.Option(help="The federation: the `name` of the job.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", show_default=False)]
Days = Annotated[int, typer.Option(min=1, help="Days until it ends.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    certs = typer.Typer(no_args_is_help=True, help="Make and check the certificates of sites, for mutual TLS.")
    certs.command("ca")(ca)
    certs.command("issue")(issue)
    certs.command("revoke")(revoke)
    certs.command("check")(check)
    certs.command("kubernetes")(kubernetes)
    app.add_typer(certs, name="certs")


def ca(folder: Folder, federation: Federation, days: Days = 3650) -> None:
    """Make the CA of a federation: DIR/ca.crt for all sites, and DIR/ca.key, to be kept where no site is."""
    _check(_FEDERATION, "--federation", federation, "lower-case letters, digits and - inside, at most 63")
    authority = _makers().new(federation, days, _now())
    for name in (CA_KEY, CA_CERTIFICATE):
        if (folder / name).exists():
            raise JobError(f"{folder / name} is there already; choose a folder without a CA")
    write(folder / CA_KEY, authority.key, private=True, replace=False)
    write(folder / CA_CERTIFICATE, authority.bundle, private=False, replace=False)
    typer.echo(f"{folder / CA_CERTIFICATE} and {folder / CA_KEY} are written; keep the key where no site is")


def issue(
    folder: Folder,
    authority: Annotated[Path, typer.Option("--ca", help="The folder with ca.crt and ca.key.")],
    federation: Federation,
    site: Annotated[str, typer.Option(help="The site that is to have it.")],
    dns: Annotated[list[str] | None, typer.Option(help="A host name by which neighbours call it; repeatable.")] = None,
    ip: Annotated[list[str] | None, typer.Option(help="The same, an address; repeatable.")] = None,
    days: Days = 365,
) -> None:
    """Make a site's certificate: tls.crt, tls.key, ca.crt (and ca.crl) in DIR, which is what CONCORD_TLS_DIR wants."""
    wanted = _wanted(federation, site, dns or (), ip or ())
    now = _now()
    certificates, key = _read(authority / CA_CERTIFICATE), _read(authority / CA_KEY)
    revoked = _read(authority / CA_REVOKED) if (authority / CA_REVOKED).exists() else b""
    files = _makers().from_pem(certificates, key, f"the CA in {authority}", now, revoked).issue(wanted, days, now)
    write(folder / "tls.key", files.key, private=True)
    write(folder / "tls.crt", files.certificate, private=False)
    write(folder / "ca.crt", files.authorities, private=False)
    if files.revoked:
        write(folder / "ca.crl", files.revoked, private=False)
    typer.echo(f"{folder} has what site {site} needs, until {files.until:%Y-%m-%d %H:%M:%S} UTC")


def revoke(
    certificate: Annotated[
        list[Path], typer.Argument(metavar="CRT...", help="Certificates (tls.crt).", show_default=False)
    ],
    authority: Annotated[Path, typer.Option("--ca", help="The folder with ca.crt and ca.key.")],
) -> None:
    """Add certificates to ca.crl in the CA's folder: laid beside ca.crt at every site, it shuts them out."""
    now, path = _now(), authority / CA_REVOKED
    made = _makers().from_pem(
        _read(authority / CA_CERTIFICATE), _read(authority / CA_KEY), f"the CA in {authority}", now
    )
    listed = _read(path) if path.exists() else None
    for one in certificate:
        listed = made.revoke(_read(one), listed, now)
    if listed is not None:
        write(path, listed, private=False)
    typer.echo(f"{path} is written; lay it beside ca.crt at every site, where it is taken without a restart")


def check(
    folder: Folder,
    site: Annotated[str | None, typer.Option(help="The site it must be of.")] = None,
    federation: Annotated[str | None, typer.Option(help="The federation it must be of.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at DIR as a process does that starts with it: who it is, until when, by which CA; exit 1 if unusable."""
    from concord.transport.material import date, load

    try:
        facts = load(folder, federation, site, time.time()).facts
    except CertificateError as error:
        if as_json:
            print_json({"ok": False, "problem": str(error)})
        else:
            typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_OTHER) from error
    found = {
        "identity": facts.uris[0],
        "hosts": list(facts.hosts),
        "issuer": facts.issuer,
        "since": date(facts.since),
        "until": date(facts.until),
    }
    if as_json:
        print_json({"ok": True, **found})
    else:
        rows = [(name, ", ".join(value) if isinstance(value, list) else value) for name, value in found.items()]
        console().print(table("", ("", str(folder)), rows))


def kubernetes(
    federation: Federation,
    namespace: Annotated[str, typer.Option(help="The namespace of all Secrets.")],
    site: Annotated[list[str], typer.Option(help="A site and its host names: n1=NAME,NAME; repeatable.")],
    ca_secret: Annotated[str, typer.Option(help="The Secret of the CA; made if it is not there, else not changed.")],
    secret_prefix: Annotated[str, typer.Option(help="A site's Secret is called by this and the name in lower case.")],
    label: Annotated[list[str] | None, typer.Option(help="A label for Secrets: KEY=VALUE; repeatable.")] = None,
    days: Days = 365,
    ca_days: Annotated[int, typer.Option(min=1, help="The same, of a CA that is made.")] = 3650,
    as_json: AsJson = False,
) -> None:
    """Keep the Secrets of a federation's sites in a namespace: made if missing, renewed in time, else left alone."""
    sites = tuple(_kubernetes_site(federation, text) for text in site)
    twice = {one.site for one in sites if sum(one.site.lower() == other.site.lower() for other in sites) > 1}
    if twice:
        raise JobError(f"--site: {', '.join(sorted(twice))} is given twice")
    names = {secret_prefix + one.site.lower() for one in sites}
    for name in (ca_secret, *sorted(names)):
        _check(_SECRET, "the Secret's name", name, "lower-case letters, digits, . and - inside, at most 253")
    if ca_secret in names:
        raise JobError(f"--ca-secret: {ca_secret} is also the name of a site's Secret")
    _makers()
    try:
        from concord.apps.cluster_certificates import Plan, settle
        from concord.cluster.api import Cluster
    except ImportError as error:
        raise _missing("kubernetes") from error
    plan = Plan(ca_secret, secret_prefix, sites, federation, _labels(label or ()), days, ca_days)
    outcomes = []
    with closing(Cluster.connect(namespace, os.environ)) as cluster:
        for outcome in settle(cluster, plan, _now()):
            outcomes.append(outcome)
            if not as_json:
                typer.echo(f"{outcome.secret}: {outcome.action}{f', {outcome.why}' if outcome.why else ''}")
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])


def write(path: Path, content: bytes, *, private: bool, replace: bool = True) -> None:
    """A file as a whole or not at all, readable by its owner only if `private`; EnvironmentProblem if it cannot be.

    JobError if it is there and not to be replaced.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o600 if private else 0o644)
            if replace:
                os.replace(temporary, path)
            else:
                _link(Path(temporary), path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from error


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except FileExistsError as error:
        raise JobError(f"{path} is there already; choose another folder") from error


def _makers() -> type[Authority]:
    try:
        from concord.certificates import Authority
    except ImportError as error:
        raise _missing("cryptography") from error
    return Authority


def _missing(package: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"certificates are made with {package}: pip install 'concord-edge[cluster]'")


def _now() -> datetime:
    return datetime.now(UTC)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror}; `concord certs ca` makes a CA") from error


def _wanted(federation: str, site: str, hosts: Sequence[str], addresses: Sequence[str]) -> Wanted:
    _makers()
    from concord.certificates import Wanted

    _check(_FEDERATION, "--federation", federation, "lower-case letters, digits and - inside, at most 63")
    _check(_SITE, "--site", site, "letters, digits and - inside, at most 63")
    for host in hosts:
        _check(_HOST, "--dns", host, "a host name")
    try:
        return Wanted(federation, site, tuple(hosts), tuple(map(ip_address, addresses)))
    except ValueError as error:
        raise JobError(f"--ip: {error}") from error


def _kubernetes_site(federation: str, text: str) -> Wanted:
    site, _, hosts = text.partition("=")
    return _wanted(federation, site, tuple(filter(None, (host.strip() for host in hosts.split(",")))), ())


def _labels(texts: Sequence[str]) -> Mapping[str, str]:
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise JobError(f"--label: should be KEY=VALUE, found {text!r}")
        labels[key] = value
    return labels


def _check(pattern: re.Pattern[str], what: str, text: str, should_be: str) -> None:
    if not pattern.fullmatch(text):
        raise JobError(f"{what}: should be {should_be}, found {text!r}")
