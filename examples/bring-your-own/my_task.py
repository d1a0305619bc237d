"""A model and data of one's own. `load` runs at each site and returns what is there; no data are shared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

POINTS = 16
HEALTHY, UNBALANCED, WORN = range(3)
SEEN = ((HEALTHY, UNBALANCED), (HEALTHY, WORN), (HEALTHY,))
"""What the first, second, third, ... site has met in its own machines."""


def build(hidden: int = 16) -> nn.Module:
    """A network from one vibration trace of 16 points to three logits."""
    return nn.Sequential(nn.Linear(POINTS, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def load(site: str, sites: Sequence[str]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """One site's (train, validation): it trains on the faults it has met and is tested on all of them."""
    place = sites.index(site)
    train = _traces(SEEN[place % len(SEEN)], 120, seed=place)
    validation = _traces((HEALTHY, UNBALANCED, WORN), 100, seed=1000)
    return train, validation


def _traces(kinds: Sequence[int], each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs (n, 16) and labels (n,) of synthetic machines, `each` of every kind."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(kinds).repeat_interleave(each)
    time = torch.linspace(0, 2 * math.pi, POINTS)
    phase = 2 * math.pi * torch.rand(len(labels), 1, generator=generator)
    noise = 0.3 * torch.randn(len(labels), POINTS, generator=generator)
    swing = (labels == UNBALANCED)[:, None] * torch.sin(time + phase)
    rattle = (labels == WORN)[:, None] * torch.sin(5 * time + phase)
    return swing + rattle + noise, labels
