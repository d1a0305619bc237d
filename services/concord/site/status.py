"""What a site knows of itself and its edges, as one value that is shown, scraped and served as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from concord.learning.privacy import PrivacyStatus


class Phase(StrEnum):
    """Where a site stands in its job: `joining` while it waits to be a member, and to hear its neighbours."""

    JOINING = "joining"
    TRAINING = "training"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class EdgeStatus:
    """One edge from this side.

    `staleness_rounds` counts this site's rounds, and `staleness_seconds` the seconds, since the newest update from
    the neighbour was absorbed (None: none yet). `consensus_distance` is |w_i - w_j| / |w_i| as far as this end can
    tell. `sent` and `received` count updates published and absorbed.
    """

    epoch: int
    penalty: float
    sent: int
    received: int
    neighbour_round: int | None
    staleness_rounds: int | None
    staleness_seconds: float | None
    consensus_distance: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """The brain's part of a status: counters since the job began, times in seconds."""

    phase: Phase
    incarnation: int
    round: int
    step: int
    samples: int
    loss: float | None
    metrics: Mapping[str, float]
    bad_steps: int
    rollbacks: int
    version: int
    edges: Mapping[str, EdgeStatus]


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """A whole status. `classes` counts local training samples by class; `metric` names the headline metric.

    `privacy` is None where nothing is done for it. Where it is not, `classes` is empty and no loss is told, because
    both would tell of single samples.
    """

    site: str
    federation: str
    task: str
    algorithm: str
    metric: str
    rounds: int | None
    classes: Mapping[str, int]
    parameters: int
    reported_at: float
    started_at: float
    steps_per_second: float
    progress: Progress
    privacy: PrivacyStatus | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))
