"""Runs a candidate beside the model in service on a share of real requests, and counts where they disagree.

Off the way of every request: an answer is offered to a short queue, and is dropped if that is full. One thread works
the queue off, and rests longer than it works. Must not know HTTP, nor who decides what is served.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from concord.serving.predictor import Prediction, ServedModel

DEPTH = 64
"""Answers that may wait to be compared."""
REST = 3.0
"""The thread rests for so many times as long as it has just worked: a quarter of a processor at most."""
_LONGEST_REST = 1.0
MOST_ROWS = 64
"""Of a larger request only the first rows are compared."""
MOST_NUMBERS = 1 << 18
"""And of those so many that they hold no more numbers than this, 1 MiB, so that what waits is bounded in bytes."""


@dataclass(slots=True)
class Comparison:
    """How far a candidate's answers are from those of the model in service, over `rows` rows of `requests` requests.

    `winners` counts rows whose likeliest class differs, `difference` sums the mean absolute difference of probabilities
    (or of outputs, where there are no classes) over rows.
    """

    version: int
    against: int
    requests: int = 0
    rows: int = 0
    winners: int = 0
    difference: float = 0.0

    def report(self) -> dict[str, object]:
        """For people, as JSON; shares are None before the first row."""
        rows = self.rows or None
        return {
            "version": self.version,
            "against": self.against,
            "requests": self.requests,
            "rows": self.rows,
            "different_winners": rows and self.winners / rows,
            "mean_abs_difference": rows and self.difference / rows,
        }


@dataclass(slots=True)
class ShadowState:
    """Counters since the start: answers compared, dropped because the queue was full, failed; rows that disagreed."""

    compared: int = 0
    dropped: int = 0
    failed: int = 0
    rows: int = 0
    different_winners: int = 0
    current: Comparison | None = None
    done: dict[int, Comparison] = field(default_factory=dict)
    """By version of the candidate; those no longer on the shelf are forgotten."""


class Shadow:
    """Compares at most one candidate at a time; `share` (0 to 1) of the answers of the model in service count."""

    def __init__(self, share: float, depth: int = DEPTH) -> None:
        self.share = share
        self.state = ShadowState()
        self._credit = 0.0
        self._candidate: ServedModel | None = None
        self._waiting: queue.Queue[tuple[Tensor, Prediction] | None] = queue.Queue(depth)
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def candidate(self) -> ServedModel | None:
        """The model that is compared now."""
        return self._candidate

    def follow(self, candidate: ServedModel | None, against: int, shelf: frozenset[int]) -> None:
        """From now on compare this candidate with that version in service; `shelf` are the versions still there."""
        state = self.state
        state.done = {version: one for version, one in state.done.items() if version in shelf}
        self._candidate = candidate
        if candidate is None:
            state.current = None
        else:
            version = candidate.snapshot.version
            known = state.done.get(version)
            if known is None or known.against != against:
                known = state.done[version] = Comparison(version, against)
            state.current = known

    def offer(self, inputs: Tensor, prediction: Prediction) -> None:
        """An answer of the model in service; returns at once, from any thread."""
        if self._candidate is None:
            return
        self._credit += self.share  # two threads may lose a little to each other: it is a share, not an account
        if self._credit < 1.0:
            return
        self._credit -= 1.0
        try:
            self._waiting.put_nowait((_first_rows(inputs), prediction))
        except queue.Full:
            self.state.dropped += 1

    def start(self) -> None:
        """Begin to compare."""
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what waits is dropped."""
        self._candidate = None
        self._stopped.set()
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (one := self._waiting.get()) is not None:
            started = time.perf_counter()
            self._compare(*one)
            del one  # or its tensors would live until the next
            if self._stopped.wait(min(REST * (time.perf_counter() - started), _LONGEST_REST)):
                return

    def _compare(self, inputs: Tensor, ours: Prediction) -> None:
        candidate, comparison = self._candidate, self.state.current
        if candidate is None or comparison is None:
            return
        if (candidate.snapshot.version, ours.version) != (comparison.version, comparison.against):
            return  # answered before another model took over
        try:
            theirs = candidate.predict(inputs)
        except (RuntimeError, ValueError, TypeError, IndexError):
            self.state.failed += 1
            return
        rows = len(theirs.outputs)
        winners = sum(a != b for a, b in zip(ours.winners[:rows], theirs.winners, strict=False))
        comparison.requests += 1
        comparison.rows += rows
        comparison.winners += winners
        comparison.difference += _difference(ours, theirs, rows) * rows
        self.state.compared += 1
        self.state.rows += rows
        self.state.different_winners += winners


def _first_rows(inputs: Tensor) -> Tensor:
    rows = max(1, min(MOST_ROWS, MOST_NUMBERS // max(1, inputs[0].numel())))
    return inputs if len(inputs) <= rows else inputs[:rows].clone()  # a view would keep all of them


@torch.inference_mode()
def _difference(ours: Prediction, theirs: Prediction, rows: int) -> float:
    if ours.probabilities is None or theirs.probabilities is None:
        return (ours.outputs[:rows] - theirs.outputs).abs().mean().item()
    return (ours.probabilities[:rows] - theirs.probabilities).abs().mean().item()
