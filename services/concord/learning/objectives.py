"""The losses and metrics that a job may name; any other is given as `module:function`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": functional.cross_entropy,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "mean_squared_error": functional.mse_loss,
}
METRICS: Mapping[str, Metric] = {"accuracy": accuracy, "label_accuracy": label_accuracy}
