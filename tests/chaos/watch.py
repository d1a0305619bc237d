"""Looks at every site all the time, and says in the end what went back that must not, and how long recovery took."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from chaos.federation import Federation, Site
from chaos.wires import HOST
from concord.errors import SealError
from concord.sealed import unseal

INTERVAL = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """One site as it said it was at `at` (seconds of the harness's monotonic clock)."""

    at: float
    site: str
    incarnation: int
    round: int
    step: int
    phase: str
    received: dict[str, int]
    accuracy: float | None


@dataclass(slots=True)
class Watcher:
    """Asks in a thread of its own from `start` to `stop`. `lost` says what went back that must not."""

    world: Federation
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    saved: dict[str, int] = field(default_factory=dict)
    """The newest whole checkpoint seen of each site."""
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=1.0, trust_env=False) as client:
            while not self._over.wait(INTERVAL):
                for site in self.world.sites.values():
                    self.look(client, site)

    def look(self, client: httpx.Client, site: Site) -> None:
        """Ask one site now."""
        self._look_at_disk(site)
        sample = ask(client, site)
        if sample is None:
            return
        mine = self.samples.setdefault(site.name, [])
        if mine and sample.incarnation < mine[-1].incarnation:
            self.lost.append(f"{site.name}: incarnation {sample.incarnation} after {mine[-1].incarnation}")
        mine.append(sample)

    def _look_at_disk(self, site: Site) -> None:
        newest = newest_whole(site)
        if newest is not None:
            self.saved[site.name] = max(self.saved.get(site.name, 0), newest)

    def last(self, name: str) -> Sample | None:
        """The newest of a site."""
        samples = self.samples.get(name)
        return samples[-1] if samples else None

    def finished(self, name: str) -> bool:
        """Whether a site has done its last round."""
        sample = self.last(name)
        return sample is not None and sample.phase == "finished"

    def recovered(self, name: str, after: float) -> float | None:
        """Seconds until the site steps and has taken in news of each neighbour that still trains."""
        since = [sample for sample in self.samples.get(name, []) if sample.at >= after]
        if not since:
            return None
        first = since[0]
        for sample in since:
            done = sample.phase == "finished"
            steps = sample.step > first.step
            heard = all(
                sample.received.get(other, 0) > first.received.get(other, 0) or self._silent(other, sample.at)
                for other in first.received
            )
            if done or (steps and heard):
                return sample.at - after
        return None

    def _silent(self, name: str, at: float) -> bool:
        """Whether a site has nothing to say at that time: it is done, or away."""
        before = [sample for sample in self.samples.get(name, []) if sample.at <= at]
        return not before or before[-1].phase == "finished" or at - before[-1].at > 2.0


def ask(client: httpx.Client, site: Site) -> Sample | None:
    """What the site's trainer says of itself, by its own port or its exchange's; None if it cannot be had."""
    port = site.trainer.settings.port
    try:
        progress: dict[str, Any] = client.get(f"http://{HOST}:{port}/v1/status").json()["progress"]
    except (httpx.HTTPError, KeyError, ValueError):
        return None
    return Sample(
        at=time.monotonic(),
        site=site.name,
        incarnation=progress["incarnation"],
        round=progress["round"],
        step=progress["step"],
        phase=progress["phase"],
        received={name: edge["received"] for name, edge in progress["edges"].items()},
        accuracy=progress["metrics"].get("accuracy"),
    )


def newest_whole(site: Site) -> int | None:
    """The number of the newest checkpoint on disk that is whole."""
    for path in sorted(site.state_dir.glob("checkpoint-*.sealed"), reverse=True):
        try:
            unseal(path.read_bytes())
        except (OSError, SealError):
            continue
        return int(path.stem.removeprefix("checkpoint-"))
    return None
