"""What a trainer's loop counts, as plain values that a collector reads from another thread."""

from __future__ import annotations

from dataclasses import dataclass, field

from concord.histogram import WORK, Histogram


@dataclass(slots=True)
class SavedState:
    """The checkpoints of one process: `saved_at` (seconds since the Unix epoch) is the newest's, of earlier lives too;
    `seconds` and `bytes` are what writing it took (None: not by this process)."""

    saved_at: float | None = None
    seconds: float | None = None
    bytes: int | None = None
    written: int = 0
    failed: int = 0


@dataclass(slots=True)
class TrainerCounters:
    """Seconds since the process began, but for `turned_at`, seconds since the Unix epoch when the loop last turned.

    `steps`: a local step, its gradient included. `rounds`: from the end of one round to the end of the next, rests
    included. `rests`: waiting for the pace of the job. `mailbox`: handing over and taking updates; never a network's.
    """

    turned_at: float = 0.0
    steps: Histogram = field(default_factory=lambda: Histogram(WORK))
    rounds: Histogram = field(default_factory=lambda: Histogram(WORK))
    rests: float = 0.0
    mailbox: float = 0.0
    evaluated_at: float | None = None
    checkpoints: SavedState = field(default_factory=SavedState)
