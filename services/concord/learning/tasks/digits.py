"""Handwritten digits, 8x8 pixels: the 1,797 that come with scikit-learn; nothing is downloaded."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from concord.errors import TaskError
from concord.learning import models
from concord.learning.objectives import LOSSES, METRICS
from concord.learning.options import Options
from concord.learning.pictures import PictureForm
from concord.learning.samples import Pool, Samples
from concord.learning.task import Task

CLASSES = tuple("0123456789")
PIXELS = 64
_WHITE = 16.0  # the greatest pixel value in the data
_TEST_SHARE = 5  # one in so many samples of each class
_FILE = "digits.csv.gz"
_SEED = 0  # of the division into training and test samples, which is a part of the task


def build_task(options: Mapping[str, object]) -> Task:
    """Options: `model` (mlp, logistic or cnn) and `hidden` (width of the mlp, default 128).

    Inputs are float32 (n, 64) in [0, 1], row by row; a fifth of each class is the test set.
    """
    reader = Options(options)
    model, hidden = reader.choice("model", ("mlp", "logistic", "cnn")), reader.count("hidden", 128)
    reader.finish()

    def build_model() -> nn.Module:
        match model:
            case "logistic":
                return models.logistic(PIXELS, len(CLASSES))
            case "cnn":
                return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), models.small_cnn(1, 8, len(CLASSES)))
            case _:
                return models.mlp(PIXELS, hidden, len(CLASSES))

    return Task(
        name="digits",
        build_model=build_model,
        loss=LOSSES["cross_entropy"],
        metrics={"accuracy": METRICS["accuracy"]},
        load_pool=load_pool,
        classes=CLASSES,
        input_shape=(PIXELS,),
        picture=PictureForm(1, 8, 8, white=1.0),
    )


@cache
def load_pool() -> Pool:
    """1,442 training and 355 test samples; TaskError if scikit-learn is not installed."""
    table = _table()
    samples = Samples(table[:, :PIXELS] / _WHITE, table[:, PIXELS].long())
    test = _is_test(samples.targets)
    return Pool(samples.select((~test).nonzero()[:, 0]), samples.select(test.nonzero()[:, 0]))


def _table() -> Tensor:
    """(1797, 65) float32: pixels and label of each digit."""
    library = find_spec("sklearn")
    if library is None or library.origin is None:
        raise TaskError("task digits needs scikit-learn: pip install 'concord-edge[digits]'")
    file = Path(library.origin).with_name("datasets") / "data" / _FILE
    if not file.exists():
        from sklearn.datasets import load_digits

        inputs, targets = load_digits(return_X_y=True)
        return torch.cat([torch.from_numpy(inputs), torch.from_numpy(targets)[:, None]], dim=1).float()
    # Reading it here saves importing scikit-learn and scipy, a third of what a trainer needs to start again.
    with gzip.open(file, "rt") as lines:
        return torch.tensor([[float(word) for word in line.split(",")] for line in lines])


def _is_test(targets: Tensor) -> Tensor:
    """A mask (n,) that takes the same share of each class, at random."""
    generator = torch.Generator().manual_seed(_SEED)
    mask = torch.zeros(len(targets), dtype=torch.bool)
    for label in range(len(CLASSES)):
        members = (targets == label).nonzero()[:, 0]
        chosen = torch.randperm(len(members), generator=generator)[: len(members) // _TEST_SHARE]
        mask[members[chosen]] = True
    return mask
