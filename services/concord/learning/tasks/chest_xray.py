"""Chest X-rays with 14 findings, of which a picture may show several or none: an extract of NIH ChestX-ray14 (Wang et
al., CVPR 2017), made smaller.

With 1,000 pictures of 64x64 pixels, levels are far below what is published for the whole set at full size; only
comparisons between ways of learning count.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from concord.errors import TaskError
from concord.learning import models
from concord.learning.data import read_arrays, read_texts
from concord.learning.objectives import METRICS, Loss, Metric, auc_of_label
from concord.learning.options import Options
from concord.learning.pictures import PictureForm
from concord.learning.samples import Pool, Samples
from concord.learning.task import Task

CLASSES = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
SIZE = 64
_TEST_SHARE = 5  # one in so many pictures of each finding
# Of the division into training and test patients, which is a part of the task; chosen, before anything was trained, of
# four by how evenly it shares out the findings that few patients have.
_SEED = 1


def build_task(options: Mapping[str, object]) -> Task:
    """Options: `path` (of the .npz, see load_pool), `width` (of the network, a multiple of 4: 16), `positive_weight`.

    Inputs are uint8 (n, 1, 64, 64); the model scales them, so a served model takes pixel values 0..255. Outputs are
    logits, one per finding, each learned by itself. `positive_weight` (1) is how much more a picture with a finding
    counts than one without. Findings are rare, but the AUC asks for an order only, which needs no weight: on 1,000
    pictures pooled training ended at 0.63 with 1, 0.61 with 3 and 0.60 with 8 (means of three seeds); and with 1 the
    outputs are estimates of the probabilities of findings.
    """
    reader = Options(options)
    path, width = reader.text("path"), reader.count("width", 16)
    weight = reader.count("positive_weight", 1)
    reader.finish()
    if width % 4:
        raise TaskError(f"task.options.width: {width} must be a multiple of 4")

    def build_model() -> nn.Module:
        return nn.Sequential(models.Contrast(), models.strided_cnn(1, SIZE, len(CLASSES), width))

    return Task(
        name="chest-xray",
        build_model=build_model,
        loss=_loss(float(weight)),
        metrics=_metrics(),
        load_pool=partial(load_pool, path),
        classes=CLASSES,
        input_shape=(1, SIZE, SIZE),
        picture=PictureForm(1, SIZE, SIZE),
        multi_label=True,
        files=lambda: [Path(path)] if path else [],
    )


def load_pool(path: str | None) -> Pool:
    """About four fifths of the pictures to train and a fifth to test, no patient in both; groups are patients.

    `path` is an .npz with images (n, 64, 64) uint8, labels (n, 14) 0/1, names (n,) and classes (14,); the part of a
    name before the first `_` is the patient's. The division is the same whenever the file is, and each finding is in
    both parts if two patients have it. TaskError if there is no such file, or something else in it.
    """
    if path is None:
        raise TaskError("task.options.path: missing; chest-xray needs an .npz of images, labels, names and classes")
    images, labels, patients = _read(Path(path))
    chosen = patients_for_test(labels, patients)
    test = torch.tensor([patient in chosen for patient in patients.tolist()])
    train, held_out = (~test).nonzero()[:, 0], test.nonzero()[:, 0]
    samples = Samples(images.unsqueeze(1), labels.float())
    return Pool(samples.select(train), samples.select(held_out), patients[train])


def patients_for_test(labels: Tensor, patients: Tensor) -> set[int]:
    """Numbers of the patients to test with, of labels (n, findings) 0/1 and patients (n,).

    Greedily, the rarest finding first and no finding last, patients in random order: whoever brings the test set nearer
    to a fifth of every finding, or who keeps it nearest if a finding would be left out. One patient at least is left
    for training.
    """
    kinds = torch.cat([labels, labels.sum(dim=1, keepdim=True) == 0], dim=1).double()
    numbers, rows = torch.unique(patients, return_inverse=True)
    counts = torch.zeros(len(numbers), kinds.shape[1], dtype=torch.float64).index_add_(0, rows, kinds)
    shares = counts * _TEST_SHARE / counts.sum(dim=0).clamp_min(1)  # of the wanted number, by patient
    order = random.Random(_SEED).sample(range(len(numbers)), len(numbers))  # noqa: S311, no secret
    chosen: set[int] = set()
    for kind in counts.sum(dim=0).argsort(stable=True).tolist():
        _choose([row for row in order if counts[row, kind]], shares, chosen)
    return {int(numbers[row]) for row in chosen}


def _choose(carriers: Sequence[int], shares: Tensor, chosen: set[int]) -> None:
    """Add to `chosen` from the patients with one finding."""

    def distance(*more: int) -> float:
        return float((shares[[*chosen, *more]].sum(dim=0) - 1).abs().sum())

    free = [row for row in carriers if row not in chosen]
    for row in free[1:]:
        if distance(row) < distance():
            chosen.add(row)
    if len(free) > 1 and chosen.isdisjoint(carriers):
        chosen.add(min(free, key=distance))


def _loss(positive_weight: float) -> Loss:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        weight = outputs.new_tensor(positive_weight)
        return functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weight)

    return loss


def _metrics() -> dict[str, Metric]:
    """The mean area under the ROC curve, then that of each finding."""
    by_finding: dict[str, Metric] = {
        f"auc_{name}": partial(auc_of_label, label=label) for label, name in enumerate(CLASSES)
    }
    return {"auc": METRICS["auc"], **by_finding}


def _read(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Images (n, 64, 64) uint8, labels (n, 14) and patients (n,) int64, checked."""
    arrays, texts = read_arrays(path, ("images", "labels")), read_texts(path, ("names", "classes"))
    images, labels, names = arrays["images"], arrays["labels"], texts["names"]
    if images.dtype != torch.uint8 or images.shape[1:] != (SIZE, SIZE):
        raise TaskError(f"{path}: images are {_form(images)}; they must be uint8 (n, {SIZE}, {SIZE})")
    if texts["classes"] != CLASSES:
        raise TaskError(f"{path}: classes are {', '.join(texts['classes'])}; they must be {', '.join(CLASSES)}")
    if labels.shape != (len(images), len(CLASSES)) or not bool(((labels == 0) | (labels == 1)).all()):
        raise TaskError(f"{path}: labels are {_form(labels)}; they must be 0 or 1, ({len(images)}, {len(CLASSES)})")
    if len(names) != len(images):
        raise TaskError(f"{path}: {len(names)} names do not match {len(images)} images")
    return images, labels.long(), _patients(names)


def _patients(names: Sequence[str]) -> Tensor:
    """A number for each patient, in the order of first pictures."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(name.partition("_")[0], len(numbers)) for name in names])


def _form(array: Tensor) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} {tuple(array.shape)}"
