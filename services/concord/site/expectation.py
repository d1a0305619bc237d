"""From the edge table to what an update must be like. One place, for the exchange's door and the trainer's post."""

from __future__ import annotations

from concord.site.edges import EdgeTable
from concord.wire.codec import Expectation, default_max_bytes


def expect(table: EdgeTable, sender: str, receiver: str, max_bytes: int | None = None) -> Expectation:
    """What an update from `sender` must be like; KeyError if the table has no such edge."""
    edge = table.edges[sender]
    return Expectation(
        federation=table.federation,
        fingerprint=table.fingerprint,
        algorithm=table.algorithm,
        sender=sender,
        receiver=receiver,
        epoch=edge.epoch,
        terms=edge.terms,
        layout=table.layout,
        max_bytes=max_bytes or default_max_bytes(table.layout),
    )
