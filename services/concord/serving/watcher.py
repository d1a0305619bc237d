"""Follows a shelf and puts what should be served into service, without polling and while answers go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from concord.errors import MailboxError, SnapshotRefused
from concord.serving.choice import Gate, Place, choose, place_of
from concord.serving.predictor import Predictor
from concord.site.ports import Mark, Snapshot, SnapshotShelf, Stock

_LOG = logging.getLogger(__name__)


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
    """`failures` counts troubles with the shelf in a row; 0 means that the last call to it went well.

    `held_back` are the versions on the shelf that the gate does not let pass, `following` is whether newer ones are
    served as they come, `held_back_total` counts what was held back since the start.
    """

    failures: int = 0
    last_error: str = ""
    following: bool = True
    held_back: tuple[int, ...] = ()
    held_back_total: int = 0


Look = Callable[[Stock], Awaitable[None]]


class Watcher:
    """One task per process; `run` until cancelled. `on_stock` is told after each look what was on the shelf."""

    def __init__(
        self,
        predictor: Predictor,
        shelf: SnapshotShelf,
        times: WatchTimes | None = None,
        gate: Gate | None = None,
        on_stock: Look | None = None,
    ) -> None:
        self.state = WatcherState()
        self.gate = gate
        self.refused: set[tuple[int, float]] = set()
        """Keys of snapshots on the shelf that cannot be loaded."""
        self._predictor = predictor
        self._shelf = shelf
        self._times = times or WatchTimes()
        self._on_stock = on_stock
        self.stock = Stock()
        """What was on the shelf at the last look."""
        self._ticket: str | None = None
        self._looked = asyncio.Event()
        self._told: set[tuple[int, float]] = set()

    @property
    def served(self) -> Snapshot | None:
        """The snapshot in service, without its blob."""
        model = self._predictor.served
        return None if model is None else model.snapshot

    async def run(self) -> None:
        """Follow for ever; a shelf out of reach is tried again, a bad snapshot passed over."""
        while True:
            try:
                await self._follow_once()
                self.state.failures = 0
            except MailboxError as error:
                await self._rest(error)

    async def _follow_once(self) -> None:
        if self._ticket is None:
            # Taken before the look: what comes between the two is news to the wait.
            self._ticket = await self._shelf.ticket()
        else:
            self._ticket = await self._shelf.wait(self._ticket, self._times.patience)
        stock = await self._shelf.stock()
        await self._serve_from(stock)
        self._note(stock)
        self.stock = stock
        if self._on_stock is not None:
            await self._on_stock(stock)
        # Those who wait hold the old event; whoever comes next gets the new one.
        self._looked.set()
        self._looked = asyncio.Event()

    async def look(self) -> None:
        """Return when the watcher has looked at the shelf once more, and done what followed."""
        await self._looked.wait()

    async def _serve_from(self, stock: Stock) -> None:
        self.refused &= {snapshot.key for snapshot in stock.snapshots}
        before = self.served or stock.find(stock.marks.served)
        chosen = choose(stock, before, self.gate, self.refused)
        if chosen is not None and not self._is_served(chosen):
            snapshot = await self._shelf.load(chosen.version)
            if snapshot is not None and not await self._take(snapshot):
                await self._serve_from(stock)
                return
        await self._say_served(stock)

    async def _take(self, snapshot: Snapshot) -> bool:
        try:
            await asyncio.to_thread(self._predictor.swap, snapshot)
        except SnapshotRefused as refusal:
            _LOG.warning("snapshot %d is not served: %s", snapshot.version, refusal)
            self.refused.add(snapshot.key)
            return False
        return True

    async def _say_served(self, stock: Stock) -> None:
        """So that the shelf keeps it, and a process that starts anew knows what was good enough."""
        if self.served is not None and stock.marks.served != self.served.version:
            await self._shelf.mark(Mark.SERVED, self.served.version)

    def _note(self, stock: Stock) -> None:
        back: list[int] = []
        for snapshot in stock.snapshots:
            place, reason = place_of(snapshot, self.served, self.gate, self.refused)
            if place is Place.HELD_BACK:
                back.append(snapshot.version)
                if snapshot.key not in self._told:
                    _LOG.warning("snapshot %d is held back: %s", snapshot.version, reason)
                    self.state.held_back_total += 1
                    self._told.add(snapshot.key)
        self._told &= {snapshot.key for snapshot in stock.snapshots}
        self.state.held_back = tuple(back)
        self.state.following = stock.marks.held is None

    def _is_served(self, snapshot: Snapshot) -> bool:
        return self.served is not None and self.served.key == snapshot.key

    async def _rest(self, error: MailboxError) -> None:
        if not self.state.failures:
            _LOG.warning("the snapshot shelf is out of reach: %s", error)
        self.state.failures += 1
        self.state.last_error = str(error)
        # What comes back may be another shelf, with news of its own.
        self._ticket = None
        rest = self._times.first_rest * 2 ** min(self.state.failures - 1, 16)
        await asyncio.sleep(min(rest, self._times.longest_rest))
