"""Sites as a cluster runs them: a group of containers that share a network address, with nothing they do not need."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from concord.job import load_job
from container_engine import Engine

DIGITS = Path(__file__).parents[1] / "examples" / "digits.yaml"
HARDENED = (
    "--read-only",
    *("--tmpfs", "/tmp:rw,noexec,nosuid,nodev,size=16m"),  # noqa: S108 - a path of the container
    *("--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),
    *("--pids-limit", "128"),
)
PATIENCE = 400.0
"""Seconds until something that must happen has not happened."""


class Pod:
    """One site: a container that holds the address, as the pause container of a pod does, a Redis and the site.

    `site` and `redis` are the names of the containers, to be killed and started again.
    """

    def __init__(
        self,
        engine: Engine,
        image: str,
        network: str,
        name: str,
        environment: Mapping[str, str],
        changes: Sequence[str],
    ) -> None:
        self._engine, self._image = engine, image
        self._prefix = f"concord-{engine.run}-{name.lower()}"
        password = secrets.token_hex(16)
        self._holder = f"{self._prefix}-address"
        engine.start(
            *("--name", self._holder, "--network", network, "--network-alias", name.lower()),
            *("--publish", "127.0.0.1::8080", *HARDENED, "--memory", "32m", "--entrypoint", "sleep", image, "infinity"),
        )
        self.url = f"http://{engine.call('port', self._holder, '8080/tcp').splitlines()[0]}"
        self.redis = f"{self._prefix}-redis"
        engine.start(
            *("--name", self.redis, *self._place("redis"), "--memory", "64m", "--env", f"REDIS_PASSWORD={password}"),
            *(image, "redis", "--dir", "/var/lib/concord/redis", "--max-memory", "48000000"),
        )
        variables = {
            **environment,
            "CONCORD_JOB": "/etc/concord/job.yaml",
            "CONCORD_SITE": name,
            "CONCORD_REDIS_URL": f"redis://:{password}@127.0.0.1:6379/0",
        }
        self.site = f"{self._prefix}-site"
        engine.make(
            *("--name", self.site, *self._place("state"), "--memory", "512m"),
            *("--volume", f"{DIGITS}:/etc/concord/job.yaml:ro"),
            *(word for pair in variables.items() for word in ("--env", "=".join(pair))),
            *(image, "site", *(word for change in changes for word in ("--set", change))),
        )

    def checkpoints(self) -> list[str]:
        """The names of the site's checkpoints, oldest first."""
        mount = ("--volume", f"{self._prefix}-state:/state:ro")
        listed = self._engine.once(*HARDENED, *mount, "--entrypoint", "ls", self._image, "/state")
        return [name for name in listed.split() if name.startswith("checkpoint-")]

    def last_words(self) -> str:
        """The end of what the two containers logged."""
        return "\n".join(self._engine.call("logs", "--tail", "15", name) for name in (self.site, self.redis))

    def _place(self, folder: str) -> tuple[str, ...]:
        """Options of a container at this pod's address, with a volume of its own for what it keeps."""
        volume = self._engine.create("volume", f"{self._prefix}-{folder}")
        mount = ("--volume", f"{volume}:/var/lib/concord/{folder}")
        return ("--network", f"container:{self._holder}", *HARDENED, *mount)


class Pods:
    """The sites of the digits example, or the first few of them, in a network of their own; `start` lets them train.

    `changes` are made to the job, as `--set` has them.
    """

    def __init__(self, engine: Engine, image: str, *changes: str, only: int | None = None) -> None:
        names = load_job(DIGITS).site_names
        network = engine.create("network", f"concord-{engine.run}")
        common = {
            "CONCORD_SECRET": secrets.token_hex(32),
            "CONCORD_PEERS": ",".join(f"{name}=http://{name.lower()}:8080" for name in names),
        }
        self._engine = engine
        self.pods = {name: Pod(engine, image, network, name, common, changes) for name in names[:only]}

    def start(self) -> None:
        """Start every site's process, at about the same time."""
        self._engine.call("start", *(pod.site for pod in self.pods.values()))

    def __getitem__(self, name: str) -> Pod:
        return self.pods[name]

    @property
    def urls(self) -> dict[str, str]:
        """Where each site answers."""
        return {name: pod.url for name, pod in self.pods.items()}

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Return once `condition` holds; AssertionError with the last words of every site if it never does."""
        wait_until(condition, what, lambda: "\n".join(f"{name}: {pod.last_words()}" for name, pod in self.pods.items()))


def wait_until(condition: Callable[[], bool], what: str, last_words: Callable[[], str]) -> None:
    """Return once `condition` holds; AssertionError with the last words if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not seen: {what}\n{last_words()}"
        time.sleep(0.1)
