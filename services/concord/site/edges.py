"""The edge table: what a trainer tells its site's exchange about the model and the edges it now has.

The trainer writes it to the mailbox as a note on every boot and change; the exchange needs nothing else to check
an update, so it knows neither the task nor the job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from concord.consensus.algorithm import EdgeTerms, PartLayout

NOTE_EDGES = "edges"
"""Mailbox note: the edge table as JSON, written by the trainer, read by the exchange."""
NOTE_STATUS = "status"
"""Mailbox note: the trainer's status as JSON, written by the trainer, read by the exchange."""
NOTE_FLOOR = "incarnation-floor"
"""Mailbox note: an incarnation (decimal) a neighbour has seen from this site that is not below the trainer's own;
written by the exchange, read by the trainer, which then goes on above it."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge as this site holds it: its epoch and the terms agreed for it."""

    epoch: int
    terms: EdgeTerms

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`; KeyError or TypeError for anything else."""
        return cls(epoch=fields["epoch"], terms=EdgeTerms(**fields["terms"]))


@dataclass(frozen=True, slots=True)
class EdgeTable:
    """`layout` says what each part of a message is; `incarnation` is the trainer's.

    `scales` is about how large the numbers are that the site itself sends in each part; empty as long as it has not.
    `seen` is the newest stamp taken in from each neighbour, as text, if any: older ones are of no use, whether or not
    the inbox still holds what was taken.
    """

    federation: str
    fingerprint: str
    algorithm: str
    incarnation: int
    layout: Mapping[str, PartLayout]
    edges: Mapping[str, Edge]
    scales: Mapping[str, float] = field(default_factory=dict)
    seen: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; KeyError, TypeError or ValueError for anything else."""
        fields = json.loads(text)
        edges = {name: Edge.from_fields(edge) for name, edge in fields.pop("edges").items()}
        layout = {name: PartLayout(**part) for name, part in fields.pop("layout").items()}
        return cls(edges=edges, layout=layout, **fields)
