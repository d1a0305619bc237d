"""What the objects of a cluster say of a federation's sites. Reads JSON objects; knows no client and no clock.

A site is a Service with the labels below. It is ready while an endpoint of that Service is, and there as long as the
Service or a pod with the same labels is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from concord.job.membership import Member
from concord.job.model import SiteName

Object = Mapping[str, Any]
"""One object of the Kubernetes API, as JSON."""

PART_OF = "app.kubernetes.io/part-of"
FEDERATION = "concord.dev/federation"
SITE = "concord.dev/site"
URL = "concord.dev/url"
REACH = "concord.dev/reach"
LEARNING_RATE = "concord.dev/learning-rate"
LOCAL_STEPS = "concord.dev/local-steps"
SERVICE_NAME = "kubernetes.io/service-name"

_NAME: TypeAdapter[str] = TypeAdapter(SiteName)


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a site, for people who look at the status."""

    name: str
    phase: str
    node: str | None
    zone: str | None


@dataclass(frozen=True, slots=True)
class Sighting:
    """One site as seen now. `member` is None if only pods are left of it; `created` is the Service's (epoch s)."""

    site: str
    member: Member | None
    ready: bool
    created: float = 0.0
    service: str | None = None
    pods: tuple[Pod, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person should put right, and the object it is about."""

    reason: str
    note: str
    kind: str = field(default="ConfigMap", compare=False)
    name: str = ""
    uid: str | None = field(default=None, compare=False)


def selector(federation: str) -> str:
    """The label selector for Services and pods of a federation."""
    return f"{PART_OF}=concord,{FEDERATION}={federation}"


def read_sites(
    services: Iterable[Object], slices: Iterable[Object], pods: Iterable[Object]
) -> tuple[dict[str, Sighting], list[Problem]]:
    """The sites by name, and what is wrong with Services that are none. Of two with one name the older counts."""
    sightings: dict[str, Sighting] = {}
    problems: list[Problem] = []
    endpoints = _endpoints(slices)
    for service in sorted(services, key=lambda one: (_created(one), _meta(one).get("name", ""))):
        if _meta(service).get("deletionTimestamp"):
            continue
        try:
            found = _sighting(service, endpoints)
        except ValueError as error:
            problems.append(_problem(service, "NotASite", str(error)))
            continue
        if found.site in sightings:
            older = sightings[found.site].service
            problems.append(
                _problem(service, "SameSite", f"the older Service {older} is the site {found.site} already")
            )
            continue
        sightings[found.site] = found
    return _with_pods(sightings, pods, endpoints), problems


def _sighting(service: Object, endpoints: Mapping[str, list[Object]]) -> Sighting:
    """ValueError says what keeps a Service from being a site."""
    meta, spec = _meta(service), service.get("spec") or {}
    found = endpoints.get(meta["name"], [])
    # Without a selector and without endpoints the site is outside this cluster, where nobody can see if it is ready.
    outside = not spec.get("selector") and meta["name"] not in endpoints
    return Sighting(
        site=_site_name((meta.get("labels") or {}).get(SITE, "")),
        member=_member(meta.get("annotations") or {}),
        ready=outside or any(_up(endpoint) for endpoint in found),
        created=_created(service),
        service=meta["name"],
    )


def _site_name(label: str) -> str:
    try:
        return _NAME.validate_python(label)
    except ValidationError as error:
        raise ValueError(f"the label {SITE} {_reason(error)}") from error


def _member(annotations: Mapping[str, str]) -> Member:
    reach = annotations.get(REACH, "both")
    given: dict[str, object] = {"reach": reach, "url": annotations.get(URL)}
    for key, annotation, number in (
        ("learning_rate", LEARNING_RATE, float),
        ("local_steps", LOCAL_STEPS, int),
    ):
        if annotation in annotations:
            try:
                given[key] = number(annotations[annotation])
            except ValueError as error:
                raise ValueError(f"the annotation {annotation} is no number: {annotations[annotation]!r}") from error
    if given["url"] is None and reach != "outbound":
        raise ValueError(f"the annotation {URL} is missing: neighbours need the site's base URL")
    try:
        return Member.model_validate(given)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0]).replace("_", "-")
        raise ValueError(f"the annotation concord.dev/{key} {_reason(error)}") from error


def _reason(error: ValidationError) -> str:
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def _endpoints(slices: Iterable[Object]) -> dict[str, list[Object]]:
    found: dict[str, list[Object]] = {}
    for one in slices:
        service = (_meta(one).get("labels") or {}).get(SERVICE_NAME)
        if service:
            found.setdefault(service, []).extend(one.get("endpoints") or [])
    return found


def _up(endpoint: Object) -> bool:
    """`serving` is the pod's readiness even where the Service publishes addresses that are not ready."""
    conditions = endpoint.get("conditions") or {}
    serving, ready = conditions.get("serving"), conditions.get("ready")
    answers = ready if serving is None else serving
    return answers is not False and not conditions.get("terminating")


def _with_pods(
    sightings: Mapping[str, Sighting], pods: Iterable[Object], endpoints: Mapping[str, list[Object]]
) -> dict[str, Sighting]:
    zones = dict(_zones(endpoints))
    found = dict(sightings)
    for pod in sorted(pods, key=lambda one: str(_meta(one).get("name", ""))):
        site = (_meta(pod).get("labels") or {}).get(SITE, "")
        phase = (pod.get("status") or {}).get("phase", "Unknown")
        if not site or phase in ("Succeeded", "Failed"):
            continue
        name = _meta(pod)["name"]
        seen = found.get(site, Sighting(site, None, ready=False))
        one = Pod(name, phase, (pod.get("spec") or {}).get("nodeName"), zones.get(name))
        found[site] = replace(seen, pods=(*seen.pods, one))
    return found


def _zones(endpoints: Mapping[str, list[Object]]) -> Iterator[tuple[str, str]]:
    for endpoint in (one for several in endpoints.values() for one in several):
        target, zone = endpoint.get("targetRef") or {}, endpoint.get("zone")
        if target.get("name") and zone:
            yield target["name"], zone


def _problem(service: Object, reason: str, note: str) -> Problem:
    meta = _meta(service)
    return Problem(reason, f"Service {meta['name']}: {note}", "Service", meta["name"], meta.get("uid"))


def _meta(one: Object) -> Mapping[str, Any]:
    meta: Mapping[str, Any] = one.get("metadata") or {}
    return meta


def _created(one: Object) -> float:
    text = _meta(one).get("creationTimestamp")
    return datetime.fromisoformat(text).timestamp() if text else 0.0
