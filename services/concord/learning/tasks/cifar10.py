"""CIFAR-10 (Krizhevsky 2009): 60,000 colour pictures, 32x32 pixels, of ten kinds of animals and vehicles."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from concord.errors import TaskError
from concord.learning import models
from concord.learning.data import DataSource, RemoteFile, locate, read_archive, read_arrays, read_bytes
from concord.learning.objectives import LOSSES, METRICS
from concord.learning.options import Options
from concord.learning.pictures import PictureForm
from concord.learning.samples import Pool, Samples
from concord.learning.task import Task

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SIZE = 32
# Per channel, of the training pixels in [0, 1], as usual for this data set.
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

_ARCHIVE = "cifar-10-binary.tar.gz"
_FOLDER = "cifar-10-batches-bin"
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = ("test_batch.bin",)
_RECORD = 1 + 3 * SIZE * SIZE
SOURCE = DataSource(
    name="cifar10",
    # The binary version: the one for Python is a pickle, which can run code when it is read.
    files=(
        RemoteFile(
            _ARCHIVE,
            f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
)


def build_task(options: Mapping[str, object]) -> Task:
    """Options: `model` (cnn or lenet5), `width` (of the cnn, a multiple of 4: 32), `path` (see load_pool).

    Inputs are uint8 (n, 3, 32, 32); the model scales them, so a served model takes pixel values 0..255.
    """
    reader = Options(options)
    model, width = reader.choice("model", ("cnn", "lenet5")), reader.count("width", 32)
    path = reader.text("path")
    reader.finish()
    if width % 4:
        raise TaskError(f"task.options.width: {width} must be a multiple of 4")

    def build_model() -> nn.Module:
        scale = models.Pixels(MEAN, DEVIATION)
        if model == "lenet5":
            return nn.Sequential(scale, models.lenet5(3, SIZE, len(CLASSES)))
        return nn.Sequential(scale, models.small_cnn(3, SIZE, len(CLASSES), width))

    return Task(
        name="cifar10",
        build_model=build_model,
        loss=LOSSES["cross_entropy"],
        metrics={"accuracy": METRICS["accuracy"]},
        load_pool=partial(load_pool, path),
        classes=CLASSES,
        input_shape=(3, SIZE, SIZE),
        picture=PictureForm(3, SIZE, SIZE),
        files=partial(data_files, path),
    )


def load_pool(path: str | None = None) -> Pool:
    """50,000 training and 10,000 test samples.

    `path` is an .npz with uint8 x_train, y_train, x_test, y_test (pictures (n, 32, 32, 3)), a folder with the
    extracted binary batches, or one with the archive. TaskError if there is nothing, or something else.
    """
    if path is not None and path.endswith(".npz"):
        return _from_arrays(Path(path))
    folder = _extracted(path)
    if folder is not None:
        return _pool({name: read_bytes(folder / name) for name in _TRAIN + _TEST}, folder)
    archive = locate(SOURCE, path) / _ARCHIVE
    return _pool(read_archive(archive, [f"{_FOLDER}/{name}" for name in _TRAIN + _TEST]), archive)


def data_files(path: str | None = None) -> tuple[Path, ...]:
    """What `load_pool` reads."""
    if path is not None and path.endswith(".npz"):
        return (Path(path),)
    folder = _extracted(path)
    if folder is not None:
        return tuple(folder / name for name in _TRAIN + _TEST)
    return (locate(SOURCE, path) / _ARCHIVE,)


def _extracted(path: str | None) -> Path | None:
    if path is None:
        return None
    candidates = (Path(path), Path(path) / _FOLDER)
    return next((folder for folder in candidates if (folder / _TEST[0]).is_file()), None)


def _pool(batches: Mapping[str, Tensor], origin: Path) -> Pool:
    return Pool(
        Samples.concatenate([_records(batches[name], origin / name) for name in _TRAIN]),
        Samples.concatenate([_records(batches[name], origin / name) for name in _TEST]),
    )


def _records(content: Tensor, origin: Path) -> Samples:
    """Records of one label byte and 3,072 pixel bytes, channel by channel."""
    if not len(content) or len(content) % _RECORD:
        raise TaskError(f"{origin}: {len(content)} bytes are not a whole number of records of {_RECORD} bytes")
    records = content.view(-1, _RECORD)
    return _checked(records[:, 1:].reshape(-1, 3, SIZE, SIZE), records[:, 0], origin)


def _from_arrays(path: Path) -> Pool:
    arrays = read_arrays(path, ("x_train", "y_train", "x_test", "y_test"))
    return Pool(
        _checked(_channels_first(arrays["x_train"], path), arrays["y_train"], path),
        _checked(_channels_first(arrays["x_test"], path), arrays["y_test"], path),
    )


def _channels_first(images: Tensor, origin: Path) -> Tensor:
    if images.dtype != torch.uint8 or images.shape[1:] != (SIZE, SIZE, 3):
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise TaskError(f"{origin}: pictures are {found}; they must be uint8 (n, {SIZE}, {SIZE}, 3)")
    return images.permute(0, 3, 1, 2).contiguous()


def _checked(images: Tensor, labels: Tensor, origin: Path) -> Samples:
    targets = labels.flatten().long()
    if not len(targets) or int(targets.max()) >= len(CLASSES) or int(targets.min()) < 0:
        raise TaskError(f"{origin}: labels must be within 0..{len(CLASSES) - 1}")
    return Samples(images, targets)
