"""Models whose answers tell which version they are, and a shelf that can die."""

from __future__ import annotations

import torch
from torch import nn

from concord.serving.packing import pack_model
from concord.serving.predictor import Predictor
from concord.serving.snapshots import MemoryShelf
from concord.site.ports import Mark, MarkResult, Snapshot, Stock

CLASSES = ("cat", "dog", "owl")
ROW = [0.5, -1.0, 0.25, 2.0]
FINGERPRINT = "f00d"


def build_model() -> nn.Module:
    """Four numbers in, one output per class; with a buffer, as a normalisation layer would have."""
    model = nn.Linear(4, 3)
    model.register_buffer("seen", torch.tensor(0))
    return model


def marked_model(mark: float) -> nn.Module:
    """Answers every row with (mark, 0, -mark)."""
    model = build_model()
    with torch.no_grad():
        model.get_parameter("weight").zero_()
        model.get_parameter("bias").copy_(torch.tensor([mark, 0.0, -mark]))
    return model


def snapshot_of(model: nn.Module, version: int, fingerprint: str = FINGERPRINT, accuracy: float = 0.5) -> Snapshot:
    """A snapshot whose round is ten times its version."""
    return Snapshot(
        version=version,
        round=10 * version,
        step=80 * version,
        fingerprint=fingerprint,
        metrics={"accuracy": accuracy},
        created_at=1000.0 + version,
        blob=pack_model(model),
    )


def marked_snapshot(version: int, accuracy: float = 0.5) -> Snapshot:
    """A snapshot of the model that answers with its version."""
    return snapshot_of(marked_model(float(version)), version, accuracy=accuracy)


def new_predictor() -> Predictor:
    """A predictor for `build_model`, with nothing to serve yet."""
    return Predictor(build_model, CLASSES, (4,), "animals", FINGERPRINT)


class FragileShelf:
    """A shelf in memory that can die under its readers and come back empty; counts the calls of `wait`."""

    def __init__(self, keep: int = 3) -> None:
        self.waits = 0
        self._keep = keep
        self._shelf = MemoryShelf(keep)

    async def die(self) -> None:
        """From now on every call raises MailboxError, and so does a wait that is under way."""
        await self._shelf.close()

    def start_over(self) -> None:
        """From now on calls reach an empty shelf."""
        self._shelf = MemoryShelf(self._keep)

    async def publish(self, snapshot: Snapshot) -> None:
        await self._shelf.publish(snapshot)

    async def newest_version(self) -> int | None:
        return await self._shelf.newest_version()

    async def load(self, version: int | None = None) -> Snapshot | None:
        return await self._shelf.load(version)

    async def stock(self) -> Stock:
        return await self._shelf.stock()

    async def mark(self, mark: Mark, version: int) -> MarkResult:
        return await self._shelf.mark(mark, version)

    async def ticket(self) -> str:
        return await self._shelf.ticket()

    async def wait(self, ticket: str, timeout: float) -> str:
        self.waits += 1
        return await self._shelf.wait(ticket, timeout)

    async def close(self) -> None:
        await self._shelf.close()
