"""What a site's exchange has seen of its edges, as plain counters that a collector reads at scrape time."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from concord.errors import RefusalReason
from concord.histogram import DELIVERY, Histogram
from concord.transport.circuit import CircuitState
from concord.wire.messages import Stamp


@dataclass(slots=True)
class EdgeTraffic:
    """One edge since the exchange started.

    Ours to them: `attempts` and `failures` count requests this site made, `sent` updates they stored,
    `delivered` the newest stamp they are known to have, `delivery` seconds from the first attempt to the
    answer, `rejected` our updates they refused, by their reason. Theirs to us: `received` updates stored,
    `known` updates we had already, `age` seconds from their `sent_at` to the store (both clocks count),
    `refused` those that were refused.
    """

    attempts: int = 0
    failures: int = 0
    sent: int = 0
    delivered: Stamp | None = None
    delivery: Histogram = field(default_factory=lambda: Histogram(DELIVERY))
    rejected: Counter[str] = field(default_factory=Counter)
    received: int = 0
    known: int = 0
    age: Histogram = field(default_factory=lambda: Histogram(DELIVERY))
    refused: Counter[RefusalReason] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    circuit: CircuitState = CircuitState.CLOSED
    last_error: str | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON; latencies as their last and mean seconds."""
        return {
            "circuit": self.circuit.value,
            "attempts": self.attempts,
            "failures": self.failures,
            "sent": self.sent,
            "delivered": None if self.delivered is None else str(self.delivered),
            "delivery_seconds": _summary(self.delivery),
            "rejected": dict(self.rejected),
            "received": self.received,
            "known": self.known,
            "age_seconds": _summary(self.age),
            "refused": {reason.value: count for reason, count in self.refused.items()},
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "last_error": self.last_error,
        }


def _summary(latencies: Histogram) -> dict[str, float | int | None]:
    count = latencies.count
    return {"last": latencies.last, "mean": latencies.total / count if count else None, "count": count}


@dataclass(slots=True)
class ExchangeState:
    """A whole exchange.

    `unproven` counts requests refused for the identity they claimed, `too_often` those that came too soon after others,
    `turned_away` connections that were refused or cut off, by why. `emptied` is how often the mailbox had lost its
    content, `mailbox_errors` failed calls to it.
    """

    site: str
    edges: defaultdict[str, EdgeTraffic] = field(default_factory=lambda: defaultdict(EdgeTraffic))
    unproven: int = 0
    too_often: int = 0
    turned_away: Counter[str] = field(default_factory=Counter)
    emptied: int = 0
    mailbox_errors: int = 0
