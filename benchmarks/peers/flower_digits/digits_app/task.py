"""The work itself, alike for both sides: a model, the data, and the accuracy, which leaves a mark when it is known.

Must not know either side. The folder that PEERS_FOLDER names holds the data and gets the file of marks.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DATA = "digits.json"
MARKS = "marks.jsonl"
WEIGHT = "weight"
"""The key of what a site counts for in the mean; every site counts the same, as sites of a job do by default."""
PIXELS, CLASSES = 64, 10
_WHITE = 16.0

Samples = tuple[Tensor, Tensor]
"""Inputs (n, 64) in [0, 1] and classes (n,)."""


def build(hidden: int) -> nn.Module:
    """One hidden layer with ReLU; weights come from torch's generator."""
    return nn.Sequential(nn.Linear(PIXELS, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


@cache
def load() -> tuple[Samples, Samples]:
    """All samples: to train on, and to test with."""
    data = _data()
    return _samples(data["train"]), _samples(data["test"])


def load_site(site: int) -> Samples:
    """The training samples of one site, counted from 0."""
    inputs, targets = load()[0]
    share = torch.tensor(_data()["shares"][site])
    return inputs[share], targets[share]


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The share of right answers; of the whole test set, a line in the file of marks says when it was known."""
    value = float((outputs.argmax(dim=1) == targets).float().mean())
    if len(targets) < len(_data()["test"]["targets"]):
        return value  # a rehearsal
    with (_folder() / MARKS).open("a") as marks:
        marks.write(json.dumps({"at": time.time(), "accuracy": value}) + "\n")
    return value


def _samples(part: Mapping[str, Any]) -> Samples:
    return torch.tensor(part["inputs"], dtype=torch.float32) / _WHITE, torch.tensor(part["targets"])


@cache
def _data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_folder() / DATA).read_text())
    return found


def _folder() -> Path:
    return Path(os.environ["PEERS_FOLDER"])
