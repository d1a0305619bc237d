"""Certificates of a federation's sites as Secrets of a Kubernetes namespace: made once, renewed in time.

May run as often as one likes, also at the same time: the API server decides who was first, and the other takes what
is there. Needs the rights to get, create and update Secrets.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import urllib3.exceptions
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from concord.certificates import Authority, SiteFiles, Wanted, why_renew
from concord.errors import CertificateError, ConcordError, EnvironmentProblem

CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
_TYPE = "kubernetes.io/tls"
_PATIENCE = 15.0
"""Seconds the API server has to answer."""
_ATTEMPTS = 5
"""How often to look again when somebody else changed a Secret first."""
_NOT_FOUND, _CONFLICT, _FORBIDDEN = 404, 409, 403


@dataclass(frozen=True, slots=True)
class Plan:
    """Which Secrets there are to be. A site's is called `prefix` + its name; `days` are the lives of what is made."""

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


class Secrets:
    """The Secrets of one namespace."""

    def __init__(self, api: client.CoreV1Api, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    def read(self, name: str) -> client.V1Secret | None:
        """A Secret, or None."""
        try:
            return self._api.read_namespaced_secret(name, self.namespace, _request_timeout=_PATIENCE)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return None
            raise self._problem("get", name, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(error) from error

    def create(self, name: str, secret: client.V1Secret) -> bool:
        """Whether it was made; False if there is one of that name by now."""
        call = partial(self._api.create_namespaced_secret, self.namespace, secret, _request_timeout=_PATIENCE)
        return self._write("create", name, call)

    def update(self, name: str, secret: client.V1Secret) -> bool:
        """Whether it was replaced; False if somebody changed it since it was read."""
        call = partial(self._api.replace_namespaced_secret, name, self.namespace, secret, _request_timeout=_PATIENCE)
        return self._write("update", name, call)

    def _write(self, verb: str, name: str, call: Callable[[], object]) -> bool:
        try:
            call()
        except ApiException as error:
            if error.status == _CONFLICT:
                return False
            raise self._problem(verb, name, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(error) from error
        return True

    def _problem(self, verb: str, name: str, error: ApiException) -> ConcordError:
        what = f"{verb} the Secret {name} in the namespace {self.namespace}"
        if error.status == _FORBIDDEN:
            return EnvironmentProblem(f"not allowed to {what}: the role needs get, create and update on secrets")
        return ConcordError(f"the Kubernetes API did not {what}: {error.status} {error.reason}")


@contextmanager
def connected(namespace: str) -> Iterator[Secrets]:
    """By KUBECONFIG if that is set, otherwise as the pod's service account, otherwise by the user's own configuration.

    EnvironmentProblem if none of them is there.
    """
    configuration = client.Configuration()
    try:
        if "KUBECONFIG" in os.environ:
            config.load_kube_config(os.environ["KUBECONFIG"], client_configuration=configuration)  # type: ignore[no-untyped-call]
        elif "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise EnvironmentProblem(
            f"there is no way to a Kubernetes cluster from here: {error}; run in a pod, or set KUBECONFIG"
        ) from error
    with client.ApiClient(configuration) as api:
        try:
            yield Secrets(client.CoreV1Api(api), namespace)
        finally:
            api.rest_client.pool_manager.clear()


def settle(secrets: Secrets, plan: Plan, now: datetime) -> Iterator[Outcome]:
    """See to it that all Secrets of the plan are there and in order; what was done with each, as it is done.

    CertificateError if one is there that cannot be used and is not ours to change.
    """
    authority, outcome = _authority(secrets, plan, now)
    yield outcome
    for wanted in plan.sites:
        yield _site(secrets, plan, wanted, authority, now)


def _authority(secrets: Secrets, plan: Plan, now: datetime) -> tuple[Authority, Outcome]:
    name = plan.authority
    found = secrets.read(name)
    if found is None:
        made = Authority.new(plan.federation, plan.authority_days, now)
        content = {CERTIFICATE: made.bundle, KEY: made.key, AUTHORITIES: made.bundle}
        if secrets.create(name, _secret(name, plan, content)):
            return made, Outcome(name, "created")
        found = secrets.read(name)  # another was faster: theirs is the one
    where = f"the Secret {name} in the namespace {secrets.namespace}"
    if found is None:
        raise ConcordError(f"{where} was there and is gone again; leave it alone while this runs")
    content = _content(found)
    certificates = content.get(CERTIFICATE, b"") + b"\n" + content.get(AUTHORITIES, b"")
    return Authority.from_pem(certificates, content.get(KEY, b""), where, now), Outcome(name, "kept")


def _site(secrets: Secrets, plan: Plan, wanted: Wanted, authority: Authority, now: datetime) -> Outcome:
    name = plan.prefix + wanted.site
    for _ in range(_ATTEMPTS):
        found = secrets.read(name)
        why = None if found is None else _why_renew(name, found, wanted, authority, now)
        if found is not None and why is None:
            return Outcome(name, "kept", f"until {_files(found).until:%Y-%m-%d}")
        files = authority.issue(wanted, plan.days, now)
        content = {CERTIFICATE: files.certificate, KEY: files.key, AUTHORITIES: files.authorities}
        if found is None and secrets.create(name, _secret(name, plan, content)):
            return Outcome(name, "created", f"until {files.until:%Y-%m-%d}")
        if found is not None and secrets.update(name, _changed(found, plan, content)):
            return Outcome(name, "re-issued", why or "")
    raise ConcordError(f"the Secret {name} changes faster than it can be written; look who else writes it")


def _why_renew(name: str, found: client.V1Secret, wanted: Wanted, authority: Authority, now: datetime) -> str | None:
    if found.type != _TYPE:
        raise CertificateError(
            f"the Secret {name} is of the type {found.type}, not {_TYPE}: it is not one of ours; delete it, or choose "
            "another prefix"
        )
    return why_renew(_files(found), wanted, authority, now)


def _files(secret: client.V1Secret) -> SiteFiles:
    content = _content(secret)
    return SiteFiles(*(content.get(name, b"") for name in (CERTIFICATE, KEY, AUTHORITIES)))


def _content(secret: client.V1Secret) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(text) for name, text in (secret.data or {}).items()}
    except binascii.Error:
        return {}


def _encoded(content: Mapping[str, bytes]) -> dict[str, bytes | str]:
    return {name: base64.b64encode(value).decode() for name, value in content.items()}


def _secret(name: str, plan: Plan, content: Mapping[str, bytes]) -> client.V1Secret:
    metadata = client.V1ObjectMeta(name=name, labels=dict(plan.labels) or None)
    return client.V1Secret(api_version="v1", kind="Secret", metadata=metadata, type=_TYPE, data=_encoded(content))


def _changed(found: client.V1Secret, plan: Plan, content: Mapping[str, bytes]) -> client.V1Secret:
    # With the version that was read still in it, the API server refuses if somebody was faster.
    found.data = _encoded(content)
    metadata = found.metadata or client.V1ObjectMeta()
    metadata.labels = {**(metadata.labels or {}), **plan.labels} or None
    return found


def _unreachable(error: Exception) -> EnvironmentProblem:
    return EnvironmentProblem(f"the Kubernetes API cannot be reached: {error}")
