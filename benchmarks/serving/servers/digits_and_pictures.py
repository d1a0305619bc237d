"""The two models that all servers serve: nothing but torch, because each server has an environment of its own."""

from __future__ import annotations

import torch
from torch import nn


def build(name: str) -> nn.Module:
    """`mlp`: 9,610 parameters for 64 numbers. `cnn`: 988,654 for 3 x 32 x 32. The same weights everywhere."""
    torch.manual_seed(0)
    if name == "mlp":
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 236),
        nn.ReLU(),
        nn.Linear(236, 10),
    )


SHAPES = {"mlp": (64,), "cnn": (3, 32, 32)}


def ready(name: str) -> nn.Module:
    """A model to answer with, on one thread."""
    torch.set_num_threads(1)
    return build(name).eval().requires_grad_(False)
