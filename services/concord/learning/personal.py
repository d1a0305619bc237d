"""A site's own variant of the common model: some of its parameters trained further on the site's own data.

The common model is not touched, nor are the random numbers and the order of the data that its training draws from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from concord.consensus.vectors import matching, not_finite, trainable
from concord.errors import TaskError
from concord.learning.samples import SiteData
from concord.learning.steps import Batches, evaluate
from concord.learning.task import Task
from concord.suggest import nearest

HEAD = "head"
"""Stands for the parameters of the last layer."""
_KEY = "serving.personal"


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """`steps` mini-batches of `batch_size` at `learning_rate`, for parameters that one of the patterns matches."""

    patterns: tuple[str, ...]
    steps: int
    learning_rate: float
    batch_size: int
    seed: int


@dataclass(frozen=True, slots=True)
class Tuned:
    """The parameters of the variant that differ from the common model's, by name, and its metrics."""

    tensors: Mapping[str, Tensor]
    metrics: Mapping[str, float]


class Tuner:
    """Starts from the common model each time, so that nothing needs to be remembered between two publications."""

    def __init__(self, module: nn.Module, task: Task, data: SiteData, options: TuningOptions) -> None:
        """`module` is copied; TaskError if a pattern matches none of its trainable parameters."""
        self._module = copy.deepcopy(module).eval().requires_grad_(False)
        names = list(trainable(module))
        self._names = own_names(names, options.patterns)
        self._task = task
        self._data = data
        self._options = options

    def tune(self, module: nn.Module) -> Tuned | None:
        """The variant of the module as it is now; None if training it further comes to NaN or infinity.

        Dropout is off and running averages stand still meanwhile.
        """
        options = self._options
        self._module.load_state_dict(module.state_dict())
        own = [self._module.get_parameter(name).requires_grad_(True) for name in self._names]
        batches = Batches(self._data.train, options.batch_size, options.seed)
        for _ in range(options.steps):
            batch = batches.draw()
            loss = self._task.loss(self._module(batch.inputs), batch.targets)
            gradients = torch.autograd.grad(loss, own)
            with torch.no_grad():
                torch._foreach_add_(own, gradients, alpha=-options.learning_rate)
        tensors = {name: tensor.requires_grad_(False) for name, tensor in zip(self._names, own, strict=True)}
        if not_finite(tensors):
            return None
        return Tuned(tensors, evaluate(self._module, self._task, self._data.validation).metrics)


def own_names(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Those of the trainable parameters that the patterns match; TaskError if one matches none."""
    layer = names[-1].rpartition(".")[0]
    last_layer = f"{layer}.*" if layer else names[-1]
    chosen = [last_layer if pattern == HEAD else pattern for pattern in patterns]
    for pattern in chosen:
        if not matching(names, [pattern]):
            guess = nearest(pattern, names)
            hint = f"; did you mean '{guess}'?" if guess else ""
            raise TaskError(f"{_KEY}: '{pattern}' matches none of the model's parameters, {', '.join(names[:8])}{hint}")
    return matching(names, chosen)
