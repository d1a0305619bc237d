"""Certificates of a federation's sites as Secrets of a Kubernetes namespace: made once, renewed in time.

May run as often as one likes, also at the same time: the API server decides who was first, and the other takes what
is there. Needs the rights to get, create and update Secrets.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from concord.certificates import Authority, SiteFiles, Wanted, why_renew
from concord.cluster.api import CONFLICT, Cluster, Object
from concord.errors import CertificateError, ClusterError, EnvironmentProblem

CERTIFICATE, KEY, AUTHORITIES, REVOKED = "tls.crt", "tls.key", "ca.crt", "ca.crl"
_TYPE = "kubernetes.io/tls"
_ATTEMPTS = 5
"""How often to look again when somebody else changed a Secret first."""
_FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class Plan:
    """Which Secrets there are to be. `days` are the lives of what is made.

    That of a site is called `prefix` and the site's name in lower case, as names in Kubernetes are.
    """

    authority: str
    prefix: str
    sites: tuple[Wanted, ...]
    federation: str
    labels: Mapping[str, str] = field(default_factory=dict)
    days: int = 365
    authority_days: int = 3650


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done with one Secret: `created`, `re-issued` or `kept`, and why."""

    secret: str
    action: str
    why: str = ""


def settle(cluster: Cluster, plan: Plan, now: datetime) -> Iterator[Outcome]:
    """See to it that all Secrets of the plan are there and in order; what was done with each, as it is done.

    CertificateError if one is there that cannot be used and is not ours to change, EnvironmentProblem if the cluster
    does not answer or does not allow it, ClusterError for what else it says.
    """
    with _explained(cluster.namespace):
        authority, outcome = _authority(cluster, plan, now)
        yield outcome
        for wanted in plan.sites:
            yield _site(cluster, plan, wanted, authority, now)


def _authority(cluster: Cluster, plan: Plan, now: datetime) -> tuple[Authority, Outcome]:
    name = plan.authority
    found = cluster.secret(name)
    if found is None:
        made = Authority.new(plan.federation, plan.authority_days, now)
        content = {CERTIFICATE: made.bundle, KEY: made.key, AUTHORITIES: made.bundle}
        if _write(cluster.create_secret, _secret(name, plan, content)):
            return made, Outcome(name, "created")
        found = cluster.secret(name)  # another was faster: theirs is the one
    where = f"the Secret {name} in the namespace {cluster.namespace}"
    if found is None:
        raise ClusterError(f"{where} was there and is gone again; leave it alone while this runs")
    content = _content(found)
    certificates = content.get(CERTIFICATE, b"") + b"\n" + content.get(AUTHORITIES, b"")
    authority = Authority.from_pem(certificates, content.get(KEY, b""), where, now, content.get(REVOKED, b""))
    return authority, Outcome(name, "kept")


def _site(cluster: Cluster, plan: Plan, wanted: Wanted, authority: Authority, now: datetime) -> Outcome:
    name = plan.prefix + wanted.site.lower()
    for _ in range(_ATTEMPTS):
        found = cluster.secret(name)
        why = None if found is None else _why_renew(name, found, wanted, authority, now)
        if found is not None and why is None:
            return Outcome(name, "kept", f"until {_files(found).until:%Y-%m-%d}")
        files = authority.issue(wanted, plan.days, now)
        content = {CERTIFICATE: files.certificate, KEY: files.key, AUTHORITIES: files.authorities}
        if files.revoked:
            content[REVOKED] = files.revoked
        if found is None and _write(cluster.create_secret, _secret(name, plan, content)):
            return Outcome(name, "created", f"until {files.until:%Y-%m-%d}")
        if found is not None and _write(cluster.replace_secret, _changed(found, plan, content)):
            return Outcome(name, "re-issued", why or "")
    raise ClusterError(f"the Secret {name} changes faster than it can be written; look who else writes it")


def _write(call: Callable[[Object], object], secret: Object) -> bool:
    """Whether it was written; False if another was faster."""
    try:
        call(secret)
    except ClusterError as error:
        if error.status == CONFLICT:
            return False
        raise
    return True


def _why_renew(name: str, found: Object, wanted: Wanted, authority: Authority, now: datetime) -> str | None:
    kind = found.get("type")
    if kind != _TYPE:
        raise CertificateError(
            f"the Secret {name} is of the type {kind}, not {_TYPE}: it is not one of ours; delete it, or choose "
            "another prefix"
        )
    return why_renew(_files(found), wanted, authority, now)


def _files(secret: Object) -> SiteFiles:
    content = _content(secret)
    return SiteFiles(*(content.get(name, b"") for name in (CERTIFICATE, KEY, AUTHORITIES, REVOKED)))


def _content(secret: Object) -> dict[str, bytes]:
    return {name: base64.b64decode(text) for name, text in (secret.get("data") or {}).items()}


def _encoded(content: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in content.items()}


def _secret(name: str, plan: Plan, content: Mapping[str, bytes]) -> Object:
    metadata = {"name": name, "labels": dict(plan.labels)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": _TYPE, "data": _encoded(content)}


def _changed(found: Object, plan: Plan, content: Mapping[str, bytes]) -> Object:
    # With the version that was read still in it, the API server refuses if somebody was faster.
    metadata = {**found["metadata"], "labels": {**(found["metadata"].get("labels") or {}), **plan.labels}}
    return {**found, "metadata": metadata, "data": _encoded(content)}


@contextmanager
def _explained(namespace: str) -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        if error.status == _FORBIDDEN:
            raise EnvironmentProblem(
                f"{error}; the role needs get, create and update on secrets in the namespace {namespace}"
            ) from error
        if error.status is None and error.__cause__ is not None:
            raise EnvironmentProblem(f"the Kubernetes API does not answer: {error}") from error
        raise
