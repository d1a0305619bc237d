"""Gradients of many sites in one call: their models are rows of one tensor, and `torch.func` maps over the rows.

Agrees with the path by site to float tolerance. Must not know virtual time, messages or algorithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from concord.consensus.vectors import FlatModel, bind
from concord.learning.objectives import Loss
from concord.learning.samples import Samples
from concord.learning.steps import StepResult
from concord.simulate.experiment import Gradients, gradients_by_site
from concord.simulate.virtual_site import VirtualSite

SMALLEST_GROUP = 32
"""Sites that must step together on a CPU for one call to be worth it: it costs about as much as ten small models."""
LARGEST_GROUP = 64
"""Sites in one call: more bring nothing, and the activations of all of them are in memory at once."""
_TOLERANCE = 1e-3
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def choose_gradients(template: nn.Module, loss: Loss, storage: FlatModel, samples: Samples) -> Gradients:
    """The batched path if it gives this model the same gradients and saves time, else the path by site.

    `samples` (at least one) are to try it on. Random layers, norms with running averages and code that looks into
    tensors cannot be mapped over; convolutions can, but on a CPU that is no faster.
    """
    on_cpu = storage.primal.device.type == "cpu"
    slow = on_cpu and any(isinstance(module, _CONVOLUTIONS) for module in template.modules())
    if slow or not _agrees(deepcopy(template), loss, Samples(samples.inputs[:2], samples.targets[:2])):
        return gradients_by_site
    return BatchedGradients(template, loss, storage, SMALLEST_GROUP if on_cpu else 2)


def _agrees(template: nn.Module, loss: Loss, samples: Samples) -> bool:
    """Whether both paths give one gradient for one small batch."""
    flat = bind(template.train())
    twice = FlatModel(flat.primal.repeat(2, 1), flat.gradient.repeat(2, 1))
    try:
        BatchedGradients(template, loss, twice).compute([0, 1], [samples, samples])
    except RuntimeError:
        return False
    loss(template(samples.inputs), samples.targets).backward()  # type: ignore[no-untyped-call]
    return torch.allclose(twice.gradient, flat.gradient.expand(2, -1), rtol=_TOLERANCE, atol=_TOLERANCE)


class BatchedGradients:
    """Computes the gradients of sites whose models and gradients are the rows of `storage`, each (sites, n).

    `template` is a module like theirs; its own parameters are not used. Fewer than `smallest` sites compute each for
    itself.
    """

    def __init__(self, template: nn.Module, loss: Loss, storage: FlatModel, smallest: int = 2) -> None:
        self._template = template.train()
        self._loss = loss
        self._storage = storage
        self._smallest = smallest
        trainable = {name: one for name, one in template.named_parameters() if one.requires_grad}
        self._shapes = {name: one.shape for name, one in trainable.items()}
        self._sizes = [one.numel() for one in trainable.values()]
        self._mapped = vmap(grad_and_value(self._loss_of))

    def __call__(self, sites: Sequence[VirtualSite]) -> list[StepResult]:
        """As `gradients_by_site`: every site draws its next batch and finds its gradient in its buffer."""
        if len(sites) < self._smallest:
            return gradients_by_site(sites)
        batches = [site.learner.draw() for site in sites]
        losses = [0.0] * len(sites)
        for group in _alike(batches):
            found = self.compute([sites[index].row for index in group], [batches[index] for index in group])
            for index, loss in zip(group, found, strict=True):
                losses[index] = loss
        return [site.learner.accept(loss, len(batch)) for site, loss, batch in zip(sites, losses, batches, strict=True)]

    def compute(self, rows: Sequence[int], batches: Sequence[Samples]) -> list[float]:
        """Fill the gradients of these rows from a batch for each, all of one shape; returns the losses."""
        inputs = torch.stack([batch.inputs for batch in batches])
        targets = torch.stack([batch.targets for batch in batches])
        place = _slice_of(rows)
        gradients, losses = self._mapped(self._storage.primal[place], inputs, targets)
        self._storage.gradient[place] = gradients
        found: list[float] = losses.tolist()
        return found

    def _loss_of(self, flat: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        chunks = torch.split(flat, self._sizes)
        parameters = {
            name: chunk.view(shape) for (name, shape), chunk in zip(self._shapes.items(), chunks, strict=True)
        }
        return self._loss(functional_call(self._template, parameters, (inputs,)), targets)


def _slice_of(rows: Sequence[int]) -> slice | Tensor:
    """The same rows as a slice, which copies nothing, if they follow each other."""
    if list(rows) == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return torch.tensor(rows)


def _alike(batches: Sequence[Samples]) -> list[list[int]]:
    """Indices of batches of one shape together, at most LARGEST_GROUP of them."""
    by_shape: dict[object, list[int]] = {}
    for index, batch in enumerate(batches):
        by_shape.setdefault((batch.inputs.shape, batch.targets.shape), []).append(index)
    return [
        group[start : start + LARGEST_GROUP]
        for group in by_shape.values()
        for start in range(0, len(group), LARGEST_GROUP)
    ]
