"""The losses and metrics that a job may name; any other is given as `module:function`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of (outputs, targets) with n samples each: their mean loss, a scalar that can be differentiated."""

Metric = Callable[[Tensor, Tensor], Tensor | float]
"""Of (outputs, targets) of a whole evaluation: one number; the first metric of a task is its headline."""


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share in [0, 1] of samples whose greatest output (n, classes) is at the target class (n,)."""
    return (outputs.argmax(dim=1) == targets).float().mean()


def label_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share in [0, 1] of labels told rightly, for logits and 0/1 targets (n, labels) alike."""
    return ((outputs > 0) == (targets > 0.5)).float().mean()


def auc(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over labels of the area under the ROC curve, in [0, 1], for scores and 0/1 targets (n, labels) alike.

    Labels of which the sample holds one kind only say nothing and are left out; 0.5, which is chance, if all are.
    """
    areas = label_auc(outputs, targets)
    told = areas[~areas.isnan()]
    return told.mean() if len(told) else torch.tensor(0.5, dtype=areas.dtype)


def auc_of_label(outputs: Tensor, targets: Tensor, label: int) -> Tensor:
    """As `auc`, of one label."""
    return auc(outputs[:, label : label + 1], targets[:, label : label + 1])


def label_auc(outputs: Tensor, targets: Tensor) -> Tensor:
    """The area under the ROC curve of each label (labels,) float64, NaN where the targets are all alike.

    It is the share of pairs of a positive and a negative sample that the scores put in the right order, a tie counting
    half: the statistic of Mann and Whitney (1947), by ranks.
    """
    scores, positive = outputs.T.contiguous(), targets.T > 0.5
    ordered = scores.sort(dim=1).values
    below = torch.searchsorted(ordered, scores, right=False)
    not_above = torch.searchsorted(ordered, scores, right=True)
    ranks = (below + not_above + 1).double() / 2
    positives = positive.sum(dim=1).double()
    pairs = positives * (len(targets) - positives)
    return ((ranks * positive).sum(dim=1) - positives * (positives + 1) / 2) / pairs


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": functional.cross_entropy,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "mean_squared_error": functional.mse_loss,
}
METRICS: Mapping[str, Metric] = {"accuracy": accuracy, "label_accuracy": label_accuracy, "auc": auc}
