"""What one site sends another over one edge, as plain values. Must not know bytes, HTTP or Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

PROTOCOL = 1
"""Version of the update format and of the routes that carry it."""


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """The order of the updates on one edge, newest greatest.

    The epoch rises when both ends agree anew on the edge's terms, the incarnation on every boot of the sender,
    the sequence with every update: a restarted sender is never mistaken for an old message.
    """

    epoch: int
    incarnation: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.incarnation}.{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Stamp:
        """The inverse of `str`; ValueError if the text is not three non-negative integers."""
        epoch, incarnation, sequence = (int(part) for part in text.split("."))
        if min(epoch, incarnation, sequence) < 0:
            raise ValueError(f"negative part in stamp {text!r}")
        return cls(epoch, incarnation, sequence)


@dataclass(frozen=True, slots=True)
class Header:
    """Everything about an update but its tensors.

    `step` and `round` are the sender's counters; `penalty` and `averaging` are the edge's terms as the sender
    holds them, so that two ends which disagree notice; `sent_at` is in seconds since the Unix epoch.
    """

    federation: str
    fingerprint: str
    sender: str
    receiver: str
    stamp: Stamp
    step: int
    round: int
    algorithm: str
    penalty: float
    averaging: float
    sent_at: float
    compression: str = "none"
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Update:
    """A header and the flat tensors of one message, by part name."""

    header: Header
    parts: Mapping[str, Tensor]
