"""One site's gradients: mini-batches of its own data through its own model into one flat vector.

Must not know the algorithm that uses the gradient, neighbours, files or clocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from concord.consensus.vectors import FlatModel, bind
from concord.errors import CheckpointError, TaskError
from concord.learning.damping import MeanDamping
from concord.learning.privacy import PrivacyStatus
from concord.learning.samples import Samples
from concord.learning.task import Task

EVALUATION_BATCH = 1024
"""Samples per forward pass of an evaluation: bounds its memory whatever the size of the data."""
EVALUATION_NUMBERS = 2**19
"""Numbers in the inputs of one forward pass of an evaluation: several times faster than what a cache cannot hold."""


@dataclass(frozen=True, slots=True)
class GradientOptions:
    """What is done to a mini-batch gradient g before the algorithm sees it, in this order.

    `weight_decay` d (>= 0): g + d w. `clip` (> 0, or None): g is shortened to this Euclidean norm. `momentum`
    b in [0, 1): v = b v + (1 - b) g replaces g; the factor keeps the length of a step at the rate whatever b
    is. `mean_damping` in (0, 1], or None: what is left of g along the mean inputs of each layer, see `MeanDamping`;
    last, because it follows the model. `batch_size` (>= 1) counts samples; a shard smaller than that is used whole.
    """

    batch_size: int = 32
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None
    mean_damping: float | None = None

    def __post_init__(self) -> None:
        checks = (
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("momentum", 0.0 <= self.momentum < 1.0, "within [0, 1)"),
            ("weight_decay", 0.0 <= self.weight_decay < math.inf, "not negative"),
            ("clip", self.clip is None or 0.0 < self.clip < math.inf, "greater than 0, or null"),
            ("mean_damping", self.mean_damping is None or 0.0 < self.mean_damping <= 1.0, "within (0, 1], or null"),
        )
        for name, right, range_ in checks:
            if not right:
                raise TaskError(f"{name}: {getattr(self, name)} must be {range_}")


@dataclass(frozen=True, slots=True)
class StepResult:
    """One gradient: mean `loss` over `samples` samples; if not `finite` the gradient must not be used.

    Of a private one no loss is told, and as `samples` how many are expected.
    """

    loss: float | None
    samples: int
    finite: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss and the task's metrics over a set of samples."""

    loss: float
    metrics: Mapping[str, float]


class Sampler(Protocol):
    """Draws the batches of a learner, and remembers in a checkpoint what it needs to go on."""

    def draw(self) -> Samples:
        """The next batch, as copies."""

    def state(self) -> dict[str, Tensor]:
        """What the next draws depend on, as copies."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; CheckpointError if it is of other samples."""


class Batches:
    """Endless mini-batches of `samples`: shuffled anew each epoch, without replacement, all of one size.

    The rest of an epoch that would not fill a batch is left out; the next shuffle gives each sample its
    chance.
    """

    def __init__(self, samples: Samples, batch_size: int, seed: int) -> None:
        if not len(samples):
            raise TaskError("there are no samples to train on")
        self._samples = samples
        self._size = min(batch_size, len(samples))
        self._last = len(samples) - self._size
        self._generator = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)
        self._cursor = len(samples)

    def draw(self) -> Samples:
        """The next batch, as copies."""
        if self._cursor > self._last:
            # Drawn on the CPU, so that the batches are the same wherever the samples are.
            order = torch.randperm(len(self._samples), generator=self._generator)
            self._order = order.to(self._samples.inputs.device)
            self._cursor = 0
        batch = self._samples.select(self._order[self._cursor : self._cursor + self._size])
        self._cursor += self._size
        return batch

    def state(self) -> dict[str, Tensor]:
        """What the next draws depend on, as copies."""
        return {
            "order": self._order.clone(),
            "cursor": torch.tensor(self._cursor),
            "generator": self._generator.get_state(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`, for the same samples and batch size; CheckpointError if they are others."""
        if len(state["order"]) not in (0, len(self._samples)):
            raise CheckpointError(
                f"the checkpoint is of {len(state['order'])} training samples; there are {len(self._samples)} now: "
                "sites, split and the data must be as they were"
            )
        self._order = state["order"].to(self._samples.inputs.device, copy=True)
        self._cursor = int(state["cursor"]) if len(self._order) else len(self._samples)
        self._generator.set_state(state["generator"])


class Learner:
    """Binds a model, on the device of its training samples, and draws its gradients from them.

    `primal` (n,) holds the parameters and is for the algorithm to change in place; `gradient` (n,) is
    overwritten by each step. They are new tensors, or those of `storage`; `flat` tells those that match a pattern of
    `local`, which stay at the site, from the others. The module is left in training mode between calls. `sampler` draws
    the batches, `Batches` by `seed` if not given.
    """

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        samples: Samples,
        options: GradientOptions,
        seed: int,
        storage: FlatModel | None = None,
        local: Sequence[str] = (),
        sampler: Sampler | None = None,
    ) -> None:
        self.flat = flat = bind(module.to(samples.inputs.device), storage, local)
        self.module = module.train()
        self.primal = flat.primal
        self.gradient = flat.gradient
        self._task = task
        self._options = options
        self._batches = sampler or Batches(samples, options.batch_size, seed)
        self._momentum = torch.zeros_like(flat.primal) if options.momentum else None
        share = options.mean_damping
        self._damping = None if share is None or share == 1 else MeanDamping(self.module, samples.inputs, share)

    def compute_gradient(self) -> StepResult:
        """Fill `gradient` from the next mini-batch at the current primal, as GradientOptions say.

        A gradient or loss with NaN or infinity is reported and leaves no trace in the momentum.
        """
        return self.compute_gradient_on(self.draw())

    def compute_gradient_on(self, batch: Samples) -> StepResult:
        """As `compute_gradient`, for a batch that was drawn before."""
        self.gradient.zero_()
        loss = self._task.loss(self.module(batch.inputs), batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]  # adds into the bound views
        return self.accept(loss.item(), len(batch))

    def draw(self) -> Samples:
        """The next mini-batch, for somebody who computes its gradient in other ways and then calls `accept`."""
        return self._batches.draw()

    def accept(self, loss: float | None, samples: int) -> StepResult:
        """The second half of `compute_gradient`: `gradient` holds what the batch of that loss and size gave."""
        # One reduction serves both: it is finite only if every element is, and its root is the norm to clip.
        square = self._decayed_square()
        finite = math.isfinite(square) and (loss is None or math.isfinite(loss))
        if finite:
            self._shape_gradient(square)
        return StepResult(loss, samples, finite)

    def affords(self, steps: int) -> bool:
        """Whether so many more gradients may be computed; without privacy there is no budget to be spent."""
        return True

    def privacy(self) -> PrivacyStatus | None:
        """What the gradients have told of single samples so far; None if nothing keeps them from telling all."""
        return None

    def mark_incomplete(self) -> None:
        """An earlier life of this site has come to light whose gradients nobody counted."""

    def settle(self) -> None:
        """No more gradients are going to be computed; CheckpointError if that cannot be noted."""

    def evaluate(self, samples: Samples) -> Evaluation:
        """Loss and metrics of the current model on `samples` (at least one), without dropout or gradients."""
        self.module.eval()
        try:
            return evaluate(self.module, self._task, samples)
        finally:
            self.module.train()

    def state(self) -> dict[str, Tensor]:
        """Everything but the primal that the next gradients depend on: named tensors, copies."""
        state = {f"batches.{name}": tensor for name, tensor in self._batches.state().items()}
        state |= {f"buffer.{name}": buffer.clone() for name, buffer in self.module.named_buffers()}
        if self._momentum is not None:
            state["momentum"] = self._momentum.clone()
        if self._damping is not None:
            state |= {f"damping.{name}": tensor for name, tensor in self._damping.state().items()}
        state["torch"] = torch.get_rng_state()
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`, for the same model, samples and options; CheckpointError, no change, if not.

        Sets torch's own generator too, from which dropout draws.
        """
        self._check_state(state)
        self._batches.load_state(_section(state, "batches."))
        self._copy_model_state(state)
        torch.set_rng_state(state["torch"])

    def load_model(self, state: Mapping[str, Tensor]) -> None:
        """Only what belongs to the model: buffers and momentum; the next batches are as they would have been.

        For going back to an earlier model without meeting the same batches again; CheckpointError as `load_state`.
        """
        self._check_state(state)
        self._copy_model_state(state)

    def _copy_model_state(self, state: Mapping[str, Tensor]) -> None:
        for name, buffer in self.module.named_buffers():
            buffer.copy_(state[f"buffer.{name}"])
        if self._momentum is not None:
            self._momentum.copy_(state["momentum"])
        if self._damping is not None:
            self._damping.load_state(_section(state, "damping."))

    def _decayed_square(self) -> float:
        if self._options.weight_decay:
            self.gradient.add_(self.primal, alpha=self._options.weight_decay)
        return self.gradient.dot(self.gradient).item()

    def _shape_gradient(self, square: float) -> None:
        clip = self._options.clip
        if clip is not None and square > clip * clip:
            self.gradient.mul_(clip / math.sqrt(square))
        if self._momentum is not None:
            self._momentum.lerp_(self.gradient, 1.0 - self._options.momentum)
            self.gradient.copy_(self._momentum)
        if self._damping is not None:
            self._damping.apply()

    def _check_state(self, state: Mapping[str, Tensor]) -> None:
        ours, theirs = _shapes(self.state()), _shapes(state)
        if ours != theirs:
            odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            raise CheckpointError(
                f"the checkpoint is of another model or other training ({', '.join(odd)}): task, training.momentum and "
                "whether there is privacy must be as they were"
            )


def evaluate(module: nn.Module, task: Task, samples: Samples) -> Evaluation:
    """Loss and metrics of `module`, in the mode it is in, on `samples` (at least one)."""
    with torch.inference_mode():
        outputs = torch.cat([module(inputs) for inputs in torch.split(samples.inputs, _evaluation_batch(samples))])
        loss = float(task.loss(outputs, samples.targets))
        metrics = {name: float(metric(outputs, samples.targets)) for name, metric in task.metrics.items()}
    return Evaluation(loss, metrics)


def _evaluation_batch(samples: Samples) -> int:
    return max(1, min(EVALUATION_BATCH, EVALUATION_NUMBERS // max(1, samples.inputs[0].numel())))


def rehearse(task: Task, samples: Samples) -> None:
    """Try model, loss and metrics on two samples; TaskError says which of them does not fit the data."""
    few = Samples(samples.inputs[:2], samples.targets[:2])
    with torch.random.fork_rng(devices=[]):
        learner = Learner(task.build_model(), task, few, GradientOptions(), seed=0)
        try:
            learner.compute_gradient()
            learner.evaluate(few)
        except (RuntimeError, TypeError, ValueError, IndexError) as exc:
            shapes = f"inputs {tuple(samples.inputs.shape)}, targets {tuple(samples.targets.shape)}"
            raise TaskError(
                f"model, loss and metrics of task {task.name!r} do not fit its data ({shapes}): {exc}"
            ) from exc


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size | None]:
    """By name; that of the order of the samples, which is empty before the first batch, says nothing."""
    return {name: None if name == "batches.order" else tensor.shape for name, tensor in state.items()}


def _section(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
