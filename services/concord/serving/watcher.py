"""Follows a shelf and puts each newer snapshot into service, without polling and while answers go on."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from concord.errors import MailboxError, SnapshotRefused
from concord.serving.predictor import Predictor
from concord.site.ports import Snapshot, SnapshotShelf

_LOG = logging.getLogger(__name__)
_NOTHING_SEEN = -1


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """Seconds. `patience` is the longest single wait; a shelf that started over is noticed at its end.

    After a failure the watcher rests for `first_rest`, doubled with each further one up to `longest_rest`.
    """

    patience: float = 30.0
    first_rest: float = 0.1
    longest_rest: float = 5.0


@dataclass(slots=True)
class WatcherState:
    """`failures` counts troubles with the shelf in a row; 0 means that the last call to it went well."""

    failures: int = 0
    last_error: str = ""


class Watcher:
    """One task per process; `run` until cancelled."""

    def __init__(self, predictor: Predictor, shelf: SnapshotShelf, times: WatchTimes | None = None) -> None:
        self.state = WatcherState()
        self._predictor = predictor
        self._shelf = shelf
        self._times = times or WatchTimes()
        self._seen = _NOTHING_SEEN

    async def run(self) -> None:
        """Swap in the newest, for ever; a shelf out of reach is tried again, a bad snapshot passed over."""
        while True:
            try:
                await self._follow_once()
                self.state.failures = 0
            except MailboxError as error:
                await self._rest(error)

    async def _follow_once(self) -> None:
        newest = await self._shelf.wait(self._seen, self._times.patience)
        # Lower than before is news as well: the shelf was emptied and its trainer counts afresh.
        if newest is None or newest == self._seen:
            return
        snapshot = await self._shelf.load()
        self._seen = newest if snapshot is None else snapshot.version
        if snapshot is not None and not self._is_served(snapshot):
            await self._take(snapshot)

    async def _take(self, snapshot: Snapshot) -> None:
        try:
            await asyncio.to_thread(self._predictor.swap, snapshot)
        except SnapshotRefused as refusal:
            _LOG.warning("snapshot %d is not served: %s", snapshot.version, refusal)

    def _is_served(self, snapshot: Snapshot) -> bool:
        served = self._predictor.served
        return served is not None and (served.snapshot.version, served.snapshot.created_at) == (
            snapshot.version,
            snapshot.created_at,
        )

    async def _rest(self, error: MailboxError) -> None:
        if not self.state.failures:
            _LOG.warning("the snapshot shelf is out of reach: %s", error)
        self.state.failures += 1
        self.state.last_error = str(error)
        # What comes back may be another shelf whose versions mean other models.
        self._seen = _NOTHING_SEEN
        rest = self._times.first_rest * 2 ** min(self.state.failures - 1, 16)
        await asyncio.sleep(min(rest, self._times.longest_rest))
