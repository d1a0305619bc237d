"""Watches a fleet through its sites' status routes: the newest status of each site, and how they came there."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import httpx

from concord.cli.fleet_table import Status

_PATIENCE = 1.0
"""Seconds a site has to answer; one that hangs must not hide the others for longer."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One site's headline metric at one time: `at` is in seconds since the watch began."""

    at: float
    site: str
    round: int
    value: float


class FleetWatch:
    """Asks every site for its status a few times a second, from a thread of its own, from `with` to its end."""

    def __init__(self, urls: Mapping[str, str], interval: float = 0.25) -> None:
        self.history: list[Sighting] = []
        """Every change of a site's headline metric seen so far, in order."""
        self.first_round_after: float | None = None
        """Seconds until every site had finished a round; None as long as one has not."""
        self._urls = urls
        self._interval = interval
        self._statuses: dict[str, Status] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def statuses(self) -> dict[str, Status | None]:
        """The newest status of each site; None for one that has not answered lately."""
        return {site: self._statuses.get(site) for site in self._urls}

    @property
    def elapsed(self) -> float:
        """Seconds since the watch began."""
        return time.monotonic() - self._began

    @property
    def finished(self) -> bool:
        """Whether every site has done its last round."""
        return all(status and status["progress"]["phase"] == "finished" for status in self.statuses.values())

    def _run(self) -> None:
        with httpx.Client(timeout=_PATIENCE) as client:
            while not self._stop.wait(self._interval):
                for site, url in self._urls.items():
                    self._ask(client, site, url)

    def _ask(self, client: httpx.Client, site: str, url: str) -> None:
        try:
            answer = client.get(f"{url}/v1/status")
        except httpx.HTTPError:
            self._statuses.pop(site, None)
            return
        if answer.status_code == httpx.codes.OK and "progress" in (status := answer.json()):
            self._statuses[site] = status
            self._note(site, status)

    def _note(self, site: str, status: Status) -> None:
        progress = status["progress"]
        if self.first_round_after is None and all(
            known and known["progress"]["round"] for known in self.statuses.values()
        ):
            self.first_round_after = self.elapsed
        value = progress["metrics"].get(status["metric"])
        if value is not None:
            self.history.append(Sighting(self.elapsed, site, progress["round"], value))
