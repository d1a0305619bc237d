"""Requests that wait for the model, and in what order they are taken: in turn by client, and one model at a time.

Pure: knows no clock and no event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from concord.serving.predictor import ServedModel


class Waiting(Protocol):
    """A request that waits: `rows` for the model `served`, for the caller `client`."""

    @property
    def served(self) -> ServedModel: ...
    @property
    def rows(self) -> int: ...
    @property
    def client(self) -> str: ...
    @property
    def is_gone(self) -> bool:
        """Nobody waits for its answer any more."""
        ...


W = TypeVar("W", bound=Waiting)


@dataclass(slots=True)
class _Line(Generic[W]):
    requests: deque[W]
    rows: int = 0


class FairQueue(Generic[W]):
    """At most `capacity` rows wait, or one request of more if nothing else does."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # By client, whose turn is next first.
        self._lines: dict[str, _Line[W]] = {}
        self.rows = 0
        """That wait, those of callers who have gone included until their turn comes."""
        self.abandoned = 0
        """Requests dropped because their callers had gone."""

    def put(self, request: W, push_out: Callable[[W], None]) -> bool:
        """Let a request wait; False if there is no room.

        Room is made, as far as it takes, by pushing out the latest requests of whoever would still have more rows
        waiting than the caller of this one: who floods the queue loses to who does not.
        """
        while self.rows and self.rows + request.rows > self._capacity:
            greedy = max(self._lines, key=lambda client: self._lines[client].rows)
            own = self._lines[request.client].rows if request.client in self._lines else 0
            if self._lines[greedy].rows <= own + request.rows:
                return False
            latest = self._remove(greedy, -1)
            if latest.is_gone:
                self.abandoned += 1
            else:
                push_out(latest)
        line = self._lines.setdefault(request.client, _Line(deque()))
        line.requests.append(request)
        line.rows += request.rows
        self.rows += request.rows
        return True

    def take(self, limit: int) -> list[W]:
        """The next requests for one model: one of each client in turn, up to `limit` rows, or one request of more.

        Whose turn it is but who asks for another model is first in turn the next time.
        """
        batch: list[W] = []
        rows = 0
        passed: dict[str, _Line[W]] = {}
        while self._lines:
            client, line = next(iter(self._lines.items()))
            request = line.requests[0]
            if request.is_gone:
                self.abandoned += 1
                self._remove(client, 0)
            elif batch and request.served is not batch[0].served:
                passed[client] = self._lines.pop(client)
            elif batch and rows + request.rows > limit:
                break
            else:
                batch.append(self._remove(client, 0))
                rows += request.rows
                if client in self._lines:
                    self._lines[client] = self._lines.pop(client)  # the last in turn now
        self._lines = {**passed, **self._lines}
        return batch

    def _remove(self, client: str, place: int) -> W:
        line = self._lines[client]
        request = line.requests[place]
        del line.requests[place]
        line.rows -= request.rows
        self.rows -= request.rows
        if not line.requests:
            del self._lines[client]
        return request
