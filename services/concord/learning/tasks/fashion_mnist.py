"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 70,000 grey 28x28 pictures of ten kinds of garment."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import nn

from concord.errors import TaskError
from concord.learning import models
from concord.learning.data import DataSource, RemoteFile, locate, read_idx
from concord.learning.objectives import LOSSES, METRICS
from concord.learning.options import Options
from concord.learning.pictures import PictureForm
from concord.learning.samples import Pool, Samples
from concord.learning.task import Task

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SIZE = 28
MEAN, DEVIATION = (0.2860,), (0.3530,)  # of the training pixels in [0, 1], as usual for this data set
_PIXELS = {"standard": (MEAN, DEVIATION), "unit": ((0.0,), (1.0,))}

_SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
SOURCE = DataSource(
    name="fashion-mnist",
    files=tuple(RemoteFile(name, f"{_SITE}/{name}", digest) for name, digest in _SHA256.items()),
    system=Path("/usr/share/datasets/fashion-mnist"),  # Debian's package dataset-fashion-mnist
)


def build_task(options: Mapping[str, object]) -> Task:
    """Options: `model` (cnn, lenet5, mlp or logistic), `hidden` (width of the mlp, 128), `path` (of the four files).

    Inputs are uint8 (n, 1, 28, 28); the model scales them, so a served model takes pixel values 0..255. `pixels` says
    to what: standard (zero mean, unit deviation) or unit (from 0 to 1).
    """
    reader = Options(options)
    model = reader.choice("model", ("cnn", "lenet5", "mlp", "logistic"))
    hidden, path = reader.count("hidden", 128), reader.text("path")
    mean, deviation = _PIXELS[reader.choice("pixels", tuple(_PIXELS))]
    reader.finish()

    def build_model() -> nn.Module:
        scale = models.Pixels(mean, deviation)
        match model:
            case "mlp":
                return nn.Sequential(scale, nn.Flatten(), models.mlp(SIZE * SIZE, hidden, len(CLASSES)))
            case "logistic":
                return nn.Sequential(scale, nn.Flatten(), models.logistic(SIZE * SIZE, len(CLASSES)))
            case "lenet5":
                return nn.Sequential(scale, models.lenet5(1, SIZE, len(CLASSES)))
            case _:
                return nn.Sequential(scale, models.small_cnn(1, SIZE, len(CLASSES)))

    return Task(
        name="fashion-mnist",
        build_model=build_model,
        loss=LOSSES["cross_entropy"],
        metrics={"accuracy": METRICS["accuracy"]},
        load_pool=partial(load_pool, path),
        classes=CLASSES,
        input_shape=(1, SIZE, SIZE),
        picture=PictureForm(1, SIZE, SIZE),
        files=lambda: [locate(SOURCE, path) / file.name for file in SOURCE.files],
    )


def load_pool(path: str | None = None) -> Pool:
    """60,000 training and 10,000 test samples; TaskError if the files are nowhere, or not right."""
    directory = locate(SOURCE, path)
    return Pool(_read(directory, "train"), _read(directory, "t10k"))


def _read(directory: Path, part: str) -> Samples:
    images = directory / f"{part}-images-idx3-ubyte.gz"
    labels = directory / f"{part}-labels-idx1-ubyte.gz"
    inputs, targets = read_idx(images), read_idx(labels)
    if inputs.shape[1:] != (SIZE, SIZE) or targets.dim() != 1 or not 0 < len(inputs) == len(targets):
        raise TaskError(f"{images} {tuple(inputs.shape)} and {labels} {tuple(targets.shape)} do not belong together")
    return Samples(inputs.unsqueeze(1), targets.long())
