"""Gradients of many sites in one call: their models are rows of one tensor, and `torch.func` maps over the rows.

The mapped function is traced once per shape, because mapping anew costs as much as ten steps of a small model. Agrees
with the path by site to float tolerance. Must not know virtual time, messages or algorithms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from concord.consensus.vectors import FlatModel, bind, trainable
from concord.learning.objectives import Loss
from concord.learning.samples import Samples
from concord.learning.steps import StepResult
from concord.simulate.experiment import Gradients, Stepping, gradients_by_site

GROUP_SIZES = (64, 32, 16, 8, 4)
"""How many sites one call computes: few sizes, since each is traced by itself; fewer sites compute each for itself,
and more at once would only need more memory."""
MOST_TRACES = 40
"""Traces that are kept; batches of yet another shape are computed by site."""
WORTHWHILE = 8_192
"""Gradients by site that take about as long as loading torch's tracer: a run of fewer is over sooner without it."""
_TOLERANCE = 1e-3
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Mapped = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Of models (k, n), inputs (k, batch, ...) and targets (k, batch, ...): gradients (k, n) and losses (k,)."""


def choose_gradients(
    template: nn.Module, loss: Loss, storage: FlatModel, samples: Samples, local: Sequence[str] = ()
) -> Gradients:
    """The batched path if it gives this model the same gradients and saves time, else the path by site.

    `samples` (at least one) are to try it on, `local` the patterns of parameters that stay at their sites. Random
    layers, norms with running averages and code that looks into tensors cannot be mapped over; convolutions can, but
    on a CPU that is no faster.
    """
    on_cpu = storage.primal.device.type == "cpu"
    slow = on_cpu and any(isinstance(module, _CONVOLUTIONS) for module in template.modules())
    few = Samples(samples.inputs[:2], samples.targets[:2])
    if slow or len(storage.primal) < GROUP_SIZES[-1] or not _agrees(deepcopy(template), loss, few, local):
        return gradients_by_site
    return BatchedGradients(template, loss, storage, local)


class LateGradients:
    """By site at first, and as `choose` says from the instant at which `after` gradients are done.

    What counts is gradients and not seconds, so equal runs stay equal to the last bit.
    """

    def __init__(self, choose: Callable[[], Gradients], after: int = WORTHWHILE) -> None:
        self._choose = choose
        self._left = after
        self._chosen: Gradients | None = None

    def __call__(self, sites: Sequence[Stepping]) -> Sequence[StepResult]:
        """As `gradients_by_site`."""
        if self._left > 0:
            self._left -= len(sites)
            return gradients_by_site(sites)
        if self._chosen is None:
            self._chosen = self._choose()
        return self._chosen(sites)


def _agrees(template: nn.Module, loss: Loss, samples: Samples, local: Sequence[str]) -> bool:
    """Whether both paths give one gradient for one small batch, with other values than those of the tracing."""
    flat = bind(template.train(), local=local)
    twice = FlatModel(flat.primal.repeat(2, 1).mul_(0.5), flat.gradient.repeat(2, 1))
    together = BatchedGradients(template, loss, twice, local)
    try:
        together.compute([0, 1], [samples, samples])
    except RuntimeError:
        return False
    twice.primal.copy_(flat.primal)
    together.compute([0, 1], [samples, samples])
    loss(template(samples.inputs), samples.targets).backward()  # type: ignore[no-untyped-call]
    return torch.allclose(twice.gradient, flat.gradient.expand(2, -1), rtol=_TOLERANCE, atol=_TOLERANCE)


class BatchedGradients:
    """Computes the gradients of sites whose models and gradients are the rows of `storage`, each (sites, n).

    `template` is a module like theirs; its own trainable parameters are not used. `local` are the patterns that the
    order of the rows goes by.
    """

    def __init__(self, template: nn.Module, loss: Loss, storage: FlatModel, local: Sequence[str] = ()) -> None:
        self._template = template.train()
        self._loss = loss
        self._storage = storage
        parameters = trainable(template, local)
        self._shapes = {name: one.shape for name, one in parameters.items()}
        self._sizes = [one.numel() for one in parameters.values()]
        self._traces: dict[object, Mapped] = {}

    def __call__(self, sites: Sequence[Stepping]) -> list[StepResult]:
        """As `gradients_by_site`: every site draws its next batch and finds its gradient in its buffer."""
        if len(sites) < GROUP_SIZES[-1]:
            return gradients_by_site(sites)
        batches = [site.learner.draw() for site in sites]
        results: dict[int, StepResult] = {}
        for group in _groups(batches):
            own = [batches[index] for index in group]
            if len(group) > 1 and self._may_trace(own):
                losses = self.compute([sites[index].row for index in group], own)
                for index, loss, batch in zip(group, losses, own, strict=True):
                    results[index] = sites[index].learner.accept(loss, len(batch))
            else:
                results |= {index: sites[index].learner.compute_gradient_on(batches[index]) for index in group}
        return [results[index] for index in range(len(sites))]

    def compute(self, rows: Sequence[int], batches: Sequence[Samples]) -> list[float]:
        """Fill the gradients of these rows from a batch for each, all of one shape; returns the losses."""
        place = _slice_of(rows)
        inputs = torch.stack([batch.inputs for batch in batches])
        targets = torch.stack([batch.targets for batch in batches])
        with torch.no_grad():
            mapped = self._trace(self._storage.primal[place], inputs, targets)
            gradients, losses = mapped(self._storage.primal[place], inputs, targets)
        self._storage.gradient[place] = gradients
        found: list[float] = losses.tolist()
        return found

    def _may_trace(self, batches: Sequence[Samples]) -> bool:
        return len(self._traces) < MOST_TRACES or (len(batches), *_shape(batches[0])) in self._traces

    def _trace(self, primal: Tensor, inputs: Tensor, targets: Tensor) -> Mapped:
        key = (len(inputs), inputs.shape[1:], targets.shape[1:])
        if key not in self._traces:
            mapped = vmap(grad_and_value(self._loss_of))
            self._traces[key] = make_fx(lambda *arguments: mapped(*arguments))(primal, inputs, targets)
        return self._traces[key]

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


def _shape(batch: Samples) -> tuple[torch.Size, torch.Size]:
    return batch.inputs.shape, batch.targets.shape


def _groups(batches: Sequence[Samples]) -> Iterator[list[int]]:
    """Indices of batches of one shape, in groups of GROUP_SIZES, and one by one what is left."""
    by_shape: dict[object, list[int]] = {}
    for index, batch in enumerate(batches):
        by_shape.setdefault(_shape(batch), []).append(index)
    for left in by_shape.values():
        while left:
            size = next((size for size in GROUP_SIZES if size <= len(left)), 1)
            yield left[:size]
            left = left[size:]
