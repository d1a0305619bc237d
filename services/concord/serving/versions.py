"""Answers from a version other than the newest: taken from the shelf on demand, and a few kept loaded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from concord.errors import SnapshotRefused, UnknownModelError
from concord.serving.predictor import Predictor, ServedModel
from concord.site.ports import SnapshotShelf


class Versions:
    """Finds models by version; keeps at most `capacity` besides the one in service."""

    def __init__(self, predictor: Predictor, shelf: SnapshotShelf, capacity: int) -> None:
        self._predictor = predictor
        self._shelf = shelf
        self._capacity = capacity
        self._kept: OrderedDict[int, ServedModel] = OrderedDict()
        self._newest = -1
        self._loading = asyncio.Lock()

    def at_hand(self) -> tuple[int, ...]:
        """The versions that can be answered without going to the shelf, ascending."""
        return tuple(sorted({self._predictor.current().snapshot.version, *self._kept}))

    async def find(self, version: int) -> ServedModel:
        """The model of one version.

        UnknownModelError if it is neither in service nor on the shelf, NoModelError if there is no model yet,
        MailboxError if the shelf is out of reach.
        """
        served = self._predictor.current()
        if served.snapshot.version == version:
            return served
        self._forget_former_life(served.snapshot.version)
        async with self._loading:
            return self._kept.get(version) or await self._fetch(version)

    def _forget_former_life(self, newest: int) -> None:
        # Versions only fall when a shelf starts over: what was kept under a number is then another model.
        if newest < self._newest:
            self._kept.clear()
        self._newest = newest

    async def _fetch(self, version: int) -> ServedModel:
        snapshot = await self._shelf.load(version)
        if snapshot is None:
            raise UnknownModelError("model_version", f"version {version} is neither served nor on the shelf")
        try:
            model = await asyncio.to_thread(self._predictor.prepare, snapshot)
        except SnapshotRefused as refusal:
            raise UnknownModelError("model_version", f"version {version} cannot be served: {refusal}") from refusal
        self._kept[version] = model
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return model
