"""From a seed to what happens when: pure, so that a seed says all of its schedule."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.faults import ABSENCES, KINDS

WINDOW = (0.5, 10.0)
"""Seconds after training began in which faults begin."""
COUNTS = (5, 8)
RARE = 0.5
"""The chance that a schedule has a site that is gone, or returns late."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: `at` seconds after training began, at `site`, for `lasts` seconds."""

    at: float
    kind: str
    site: str
    lasts: float


def schedule(seed: int, sites: tuple[str, ...]) -> list[Planned]:
    """Five to eight faults in order of time, most of different kinds; a site that is away has no others meanwhile."""
    draw = random.Random(seed)
    kinds = draw.sample([kind for kind in KINDS if kind not in ABSENCES], draw.randint(*COUNTS) - 1)
    kinds.append(
        draw.choice(ABSENCES) if draw.random() < RARE else draw.choice([k for k in KINDS if k not in ABSENCES])
    )
    times = sorted(draw.uniform(*WINDOW) for _ in kinds)
    draw.shuffle(kinds)
    planned: list[Planned] = []
    away = ""
    for at, kind in zip(times, kinds, strict=True):
        site = draw.choice([name for name in sites if name != away])
        away = site if kind in ABSENCES else away
        planned.append(Planned(round(at, 2), kind, site, round(draw.uniform(*KINDS[kind].lasts), 2)))
    return planned
