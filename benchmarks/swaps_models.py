"""The models that `benchmarks.swaps` serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True)
class Kind:
    """A model to serve, and the shape of a row for it; `gap` seconds lie between two publications."""

    build: Callable[[], nn.Module]
    row: tuple[int, ...]
    gap: float


def digits() -> nn.Module:
    """A network of one hidden layer for the digits: 2,410 parameters."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def cnn() -> nn.Module:
    """A convolutional network of 1.07 million parameters on pictures of 3 x 32 x 32."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.GroupNorm(4, 64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 8 * 8, 256), nn.ReLU(), nn.Linear(256, 10)),
    )


KINDS = {"digits": Kind(digits, (64,), 0.1), "cnn": Kind(cnn, (3, 32, 32), 0.25)}
