"""Settings of one process, as opposed to the job, which all sites share: where things are, and the secret.

Flags win over the environment (CONCORD_*), which wins over defaults. Knows no framework; loads nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from concord.errors import JobError
from concord.logs import FORMATS, LEVELS
from concord.suggest import unknown

PREFIX = "CONCORD_"
MIN_SECRET_BYTES = 16
"""A shorter shared secret is refused: it could be guessed from one recorded request."""

FLEET_VARIABLES = tuple(
    f"CONCORD_FLEET_{name}"
    for name in ("FEDERATION", "NAMESPACE", "CONFIG_MAP", "LEASE", "DEGREE", "GRACE", "IDENTITY")
)
"""Settings of `concord fleet`, which `concord.fleet.settings` reads."""

OTHER_VARIABLES = ("CONCORD_DATA", "CONCORD_JOB", "CONCORD_RUN_FILE", *FLEET_VARIABLES)
"""Variables that are not settings of a site's process: the data folder, the job file, the run file of `up`, the
fleet's."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A shared secret; `repr` and `str` hide it, so that it reaches no log. Read `.value` to use it."""

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.value) < MIN_SECRET_BYTES:
            raise JobError(f"the secret has {len(self.value)} bytes; it needs at least {MIN_SECRET_BYTES}")

    def __str__(self) -> str:
        return "Secret(...)"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The secret as given in an environment variable; surrounding white space does not count."""
        return cls(text.strip().encode())

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The secret in a file, surrounding white space removed; JobError if the file cannot be read."""
        try:
            return cls(path.read_bytes().strip())
        except OSError as error:
            raise JobError(f"the secret file {path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Settings:
    """Where one site's process finds its surroundings.

    site           the site this process works for; must be one of the job's
    redis_url      the site's own mailbox and snapshot shelf; no other site may use it
    state_dir      folder for checkpoints; it must outlive the process, or a restart begins anew
    host, port     address to listen on; port 0 takes a free one; a container needs host 0.0.0.0
    threads        processors that training may use; None: one fewer than the process has, so that the exchange
                   and the mailbox beside it are not starved
    topology       the membership document: sites, edges and addresses, followed while running; None: the job's
    peers          base URL of each neighbour that can be called, over what the job or the members say
    join_timeout   seconds a new site waits for its neighbours, so as to begin where they are; only with `topology`
    secret         shared by all sites of the federation; signs every request between them
    drain          seconds for which inference, told to stop, still answers, so that nobody is cut off while load
                   balancers learn of it
    tls_dir        folder with tls.crt, tls.key and ca.crt: neighbours meet over mutual TLS, and no other way; files
                   that change are taken while running
    exchange_port  where neighbours are let in; only with `tls_dir`, without it they come to `port`
    connections    connections that a port of this process holds at most
    connections_per_address  those from one remote address; a proxy before many callers needs more
    batch_rows     rows that the model answers together at most; 1 answers each request by itself
    queue_rows     rows that may wait for the model; beyond, 429
    queue_seconds  how long a request may wait for it; beyond, 429
    admin_token    who knows it may pin, roll back, promote and unload models; None: nobody may
    log_format     what the log is written in: text for people, json for machines
    log_level      the least that is said: debug tells of every update
    insecure       without certificates and without a secret, believe whatever name a caller gives; only for a
                   network you trust
    """

    site: str = ""
    redis_url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    state_dir: Path = Path(".concord/state")
    host: str = "127.0.0.1"
    port: int = 8080
    threads: int | None = None
    topology: Path | None = None
    join_timeout: float = 120.0
    drain: float = 0.0
    peers: Mapping[str, str] = field(default_factory=dict)
    secret: Secret | None = None
    tls_dir: Path | None = None
    exchange_port: int = 8443
    connections: int = 512
    connections_per_address: int = 256
    batch_rows: int = 32
    queue_rows: int = 1024
    queue_seconds: float = 2.0
    admin_token: Secret | None = None
    log_format: str = "text"
    log_level: str = "info"
    insecure: bool = False

    def identity_secret(self) -> Secret | None:
        """The secret to sign with; None if certificates do without, or this process was explicitly told to.

        JobError if nothing was said of how sites know each other: a site must not be open to strangers by an oversight.
        """
        if self.insecure and self.tls_dir is not None:
            raise JobError(
                "--tls-dir (CONCORD_TLS_DIR) and --insecure (CONCORD_INSECURE) contradict each other; leave one out"
            )
        if self.secret is None and self.tls_dir is None and not self.insecure:
            raise JobError(
                "sites have nothing to know each other by: set --tls-dir or CONCORD_TLS_DIR to a folder with tls.crt, "
                "tls.key and ca.crt; or set --secret-file, CONCORD_SECRET_FILE or CONCORD_SECRET; "
                "or say --insecure on a network you trust"
            )
        return None if self.insecure else self.secret


def load_settings(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Settings:
    """Settings from flags (by field name; None means not given) over `environment` over defaults.

    JobError names what is unknown or cannot be read. The secret itself is never a flag, only its file is.
    """
    texts = {name: text for name, text in flags.items() if text is not None}
    for name in texts:
        if name not in _FLAGS:
            raise JobError(unknown("setting", name, _FLAGS))
    texts = {**_without_other_secret(_from_environment(environment), texts), **texts}
    values = {name: _read(name, text) for name, text in texts.items()}
    for name in _SECRETS:
        if f"{name}_file" in values:
            values[name] = values.pop(f"{name}_file")
    return replace(Settings(), **values)


def parse_peers(text: str) -> dict[str, str]:
    """`N2=http://host:port,N3=https://...` as a mapping; ValueError if it is not of that form."""
    peers: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, url = item.partition("=")
        if not name or not url.startswith(("http://", "https://")):
            raise ValueError(f"should be NAME=http://host:port, found {item!r}")
        if name in peers:
            raise ValueError(f"gives {name} twice")
        peers[name] = url.rstrip("/")
    return peers


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    known = {PREFIX + name.upper(): name for name in _READERS}
    found: dict[str, str] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        if variable not in known:
            raise JobError(unknown("environment variable", variable, [*known, *OTHER_VARIABLES]))
        found[known[variable]] = text
    for name in _SECRETS:
        if name in found and f"{name}_file" in found:
            variable = PREFIX + name.upper()
            raise JobError(f"{variable} and {variable}_FILE are both set; set one of them")
    return found


def _without_other_secret(found: dict[str, str], flags: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in found.items() if not (name in _SECRETS and f"{name}_file" in flags)}


def _read(name: str, text: str) -> Any:
    try:
        return _READERS[name](text)
    except ValueError as error:
        raise JobError(f"{name} ({PREFIX}{name.upper()}): {error}") from error


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError(f"should be a port from 0 to 65535, found {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"should be a whole number of at least 1, found {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"should be seconds from 0, found {text!r}")
    return seconds


def _redis_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(
            "should begin with redis://, rediss:// or unix://"
        )  # unsaid what it is: a password may be in it
    return text


def _switch(text: str) -> bool:
    switches = {"1": True, "true": True, "0": False, "false": False, "": False}
    if text.lower() not in switches:
        raise ValueError(f"should be true or false, found {text!r}")
    return switches[text.lower()]


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(f"should be one of {', '.join(names)}, found {text!r}")
        return text.lower()

    return read


_READERS: Mapping[str, Callable[[str], Any]] = {
    "site": str,
    "redis_url": _redis_url,
    "state_dir": Path,
    "host": str,
    "port": _port,
    "threads": _count,
    "topology": Path,
    "join_timeout": _seconds,
    "drain": _seconds,
    "peers": parse_peers,
    "secret": Secret.from_text,
    "secret_file": lambda text: Secret.from_file(Path(text)),
    "tls_dir": Path,
    "exchange_port": _port,
    "connections": _count,
    "connections_per_address": _count,
    "batch_rows": _count,
    "queue_rows": _count,
    "queue_seconds": _seconds,
    "admin_token": Secret.from_text,
    "admin_token_file": lambda text: Secret.from_file(Path(text)),
    "log_format": _one_of(*FORMATS),
    "log_level": _one_of(*LEVELS),
    "insecure": _switch,
}
_SECRETS = ("secret", "admin_token")
"""Never flags by themselves; `NAME_file` is."""
_FLAGS = tuple(name for name in _READERS if name not in _SECRETS)
