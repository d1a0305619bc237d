"""Settings of the fleet process; flags win over CONCORD_FLEET_* variables, which win over defaults."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from concord.errors import JobError
from concord.job.model import FederationName
from concord.settings import load_settings
from concord.suggest import unknown


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """One fleet: what it looks after, where, and how.

    federation     the job's name; sites carry it as a label
    namespace      where the sites and the document are; None: the one of this pod, or of the kubeconfig
    config_map     holds the document; `<config_map>-status` holds the status; None: `<federation>-topology`
    lease          of the replicas, the one that holds it leads; None: `<federation>-fleet`
    degree         most edges that a site gets; more converge in fewer rounds, and send more
    grace          seconds a site may be not ready before its edges are given up; 0: it never goes for that
    identity       this replica, in the Lease; the name of the pod is what a container calls its host
    host, port     address to listen on for health and status; port 0 takes a free one
    log_format     what the log is written in: text or json
    log_level      the least that is said
    """

    federation: str
    namespace: str | None = None
    config_map: str | None = None
    lease: str | None = None
    degree: int = 4
    grace: float = 600.0
    identity: str = field(default_factory=socket.gethostname)
    host: str = "127.0.0.1"
    port: int = 8080
    log_format: str = "text"
    log_level: str = "info"

    @property
    def document(self) -> str:
        """The name of the ConfigMap with the document."""
        return self.config_map or f"{self.federation}-topology"

    @property
    def lease_name(self) -> str:
        """The name of the Lease."""
        return self.lease or f"{self.federation}-fleet"


def load_fleet_settings(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> FleetSettings:
    """JobError names what is unknown, missing or cannot be read. Empty texts count as not given."""
    for name in flags:
        if name not in (*_READERS, *_EVERYWHERE):
            raise JobError(unknown("setting", name, (*_READERS, *_EVERYWHERE)))
    everywhere = load_settings({name: flags.get(name) for name in _EVERYWHERE}, environment)
    texts = {name: environment.get(_variable(name)) if flags.get(name) is None else flags[name] for name in _READERS}
    values = {name: _read(name, text) for name, text in texts.items() if text}
    if "federation" not in values:
        raise JobError("no federation is given: set --federation or CONCORD_FLEET_FEDERATION to the job's name")
    return FleetSettings(**{name: getattr(everywhere, name) for name in _EVERYWHERE}, **values)


def _variable(name: str) -> str:
    return f"CONCORD_FLEET_{name.upper()}"


def _read(name: str, text: str) -> Any:
    try:
        return _READERS[name](text)
    except ValueError as error:
        raise JobError(f"{name} ({_variable(name)}): {error}") from error


_FEDERATION: TypeAdapter[str] = TypeAdapter(FederationName)


def _federation(text: str) -> str:
    try:
        return _FEDERATION.validate_python(text)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _degree(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise ValueError(f"should be a whole number of at least 2, found {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        raise ValueError(f"should be seconds, 0 or more, found {text!r}")
    return seconds


_READERS: Mapping[str, Callable[[str], Any]] = {
    "federation": _federation,
    "namespace": str,
    "config_map": str,
    "lease": str,
    "degree": _degree,
    "grace": _seconds,
    "identity": str,
}
_EVERYWHERE = ("host", "port", "log_format", "log_level")
"""Settings that every process has, under the same variables."""
