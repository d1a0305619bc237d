"""Gradients that tell little of any single sample: each sample's is clipped, and noise is added to their sum (DP-SGD).

Abadi et al. 2016 (arXiv:1607.00133), Algorithm 1. All that leaves a site afterwards, updates and published models
alike, is made of these gradients and of what neighbours sent, and so tells no more than they do, whoever reads how much
of it.
Must not know files, clocks, neighbours or algorithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from concord.consensus.vectors import FlatModel, trainable
from concord.errors import CheckpointError, TaskError
from concord.learning import accountant
from concord.learning.accountant import Mechanism
from concord.learning.ledger import FILE, Ledger
from concord.learning.objectives import Loss
from concord.learning.privacy import PrivacyOptions, PrivacyStatus
from concord.learning.randomness import Randomness, normal
from concord.learning.samples import Samples
from concord.learning.steps import GradientOptions, Learner, StepResult
from concord.learning.task import Task

NUMBERS_AT_ONCE = 2**23
"""Numbers in the gradients of the samples that are held at a time: bounds the memory whatever the batch draws."""
_MARGIN = 1e-6
"""By how much less than the bound a clipped gradient is, so that rounding does not put it above."""
# Their running averages are made of samples and would be published without noise; and a batch's mean is of them all.
_ACROSS_SAMPLES = (nn.modules.batchnorm._BatchNorm,)


class PoissonBatches:
    """Batches that each sample enters by a coin of its own, of size `batch_size` in the mean; some may be empty.

    A checkpoint keeps nothing of them: steps that are done again after a crash must be done with other batches, or what
    both told would tell more than the count says.
    """

    def __init__(self, samples: Samples, batch_size: int, source: Randomness) -> None:
        if not len(samples):
            raise TaskError("there are no samples to train on")
        self.rate = min(1.0, batch_size / len(samples))
        self._samples = samples
        self._source = source

    def draw(self) -> Samples:
        """The next batch, as copies."""
        drawn = self._source.uniform(len(self._samples)) < self.rate
        return self._samples.select(drawn.nonzero()[:, 0].to(self._samples.inputs.device))

    def state(self) -> dict[str, Tensor]:
        """Only that they are private."""
        return {"private": torch.ones(())}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """There is nothing to go on from."""


class PrivateLearner(Learner):
    """A learner whose every gradient is private at the level of one sample, and counted in `ledger`.

    Otherwise as Learner. Weight decay, momentum and all that follows work on the noisy gradient and cost nothing. The
    noisy sum is divided by the size that a batch has in the mean, whatever it drew. TaskError if the model cannot be
    taken sample by sample, if delta is too large for the number of samples, or without Opacus.
    """

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        samples: Samples,
        options: GradientOptions,
        privacy: PrivacyOptions,
        ledger: Ledger,
        source: Randomness,
        storage: FlatModel | None = None,
        local: Sequence[str] = (),
    ) -> None:
        batches = PoissonBatches(samples, options.batch_size, source)
        super().__init__(module, task, samples, options, 0, storage, local, batches)
        self.ledger = ledger
        self._privacy = privacy
        self._source = source
        self._mechanism = Mechanism(privacy.noise_multiplier, batches.rate)
        self._expected = min(options.batch_size, len(samples))
        self._per_sample = SampleGradients(self.module, task.loss, local)
        self._left: int | None = None
        _check_delta(privacy.target_delta, len(samples))
        self._rehearse(samples)
        accountant.epsilon({self._mechanism: 1}, privacy.target_delta)  # so that its absence shows at once

    def compute_gradient(self) -> StepResult:
        """As Learner's, with clipping and noise; CheckpointError if the ledger cannot be written."""
        self.ledger.spend(self._mechanism)  # before anything of it can be seen
        if self._left is not None:
            self._left -= 1
        bound = self._privacy.max_grad_norm
        total = self._per_sample.clipped_sum(self.primal, self._batches.draw(), bound)
        noise = normal(self._source, len(total)).to(total.device)
        total.add_(noise, alpha=self._privacy.noise_multiplier * bound)
        self.gradient.copy_(total.div_(self._expected))
        return self.accept(None, self._expected)

    def compute_gradient_on(self, batch: Samples) -> StepResult:
        """Never: a batch drawn by others is not counted."""
        raise NotImplementedError("a private gradient draws its own batch")

    def draw(self) -> Samples:
        """Never: a gradient computed by others would be neither clipped nor counted."""
        raise NotImplementedError("a private gradient draws its own batch")

    def affords(self, steps: int) -> bool:
        """As Learner's: whether so many more gradients keep epsilon within `target_epsilon`."""
        target = self._privacy.target_epsilon
        if target is None:
            return True
        if self._left is None:
            spent, delta = self.ledger.spent, self._privacy.target_delta
            self._left = accountant.steps_within(target, delta, self._mechanism, spent)
        return steps <= self._left

    def mark_incomplete(self) -> None:
        """As Learner's; the ledger remembers it."""
        self.ledger.mark_incomplete()

    def settle(self) -> None:
        """As Learner's: the ledger gives back what was not used."""
        self.ledger.settle()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As Learner's; CheckpointError, too, if nothing is noted of what the checkpoint cost."""
        if not self.ledger.found:
            raise CheckpointError(
                f"there is a checkpoint but no {FILE} beside it, so that nobody knows what it cost: put that file "
                "back, or begin anew without the checkpoint"
            )
        super().load_state(state)

    def privacy(self) -> PrivacyStatus:
        """As Learner's."""
        options, spent = self._privacy, self.ledger.spent
        epsilon = accountant.epsilon(spent, options.target_delta)
        return PrivacyStatus(
            epsilon=epsilon if math.isfinite(epsilon) else None,
            delta=options.target_delta,
            noise_multiplier=options.noise_multiplier,
            max_grad_norm=options.max_grad_norm,
            sample_rate=self._mechanism.sample_rate,
            steps=sum(spent.values()),
            target_epsilon=options.target_epsilon,
            complete=self.ledger.complete,
        )

    def _rehearse(self, samples: Samples) -> None:
        """TaskError if the gradients of this model cannot be had sample by sample, or if samples leave traces in it."""
        for name, module in self.module.named_modules():
            if isinstance(module, _ACROSS_SAMPLES):
                raise TaskError(
                    f"privacy: {type(module).__name__} ({name or 'the model'}) mixes the samples of a batch and keeps "
                    "averages of them, which would leave the site without noise; use GroupNorm"
                )
        few = Samples(samples.inputs[:2], samples.targets[:2])
        buffers = dict(self.module.named_buffers())
        with torch.random.fork_rng(devices=[]):
            try:
                self._per_sample.clipped_sum(self.primal, few, 1.0)  # torch.func lets no tensor be changed in place
            except (RuntimeError, TypeError, ValueError, IndexError) as exc:
                raise TaskError(f"privacy: the gradient of this model cannot be taken sample by sample: {exc}") from exc
        for name, buffer in self.module.named_buffers():
            if buffer is not buffers.get(name):
                raise TaskError(
                    f"privacy: the model keeps something of the samples in its buffer {name!r}, which would leave the "
                    "site without noise"
                )


class SampleGradients:
    """The gradient of each sample of a batch, by `torch.func`, in the order of the flat vector."""

    def __init__(self, module: nn.Module, loss: Loss, local: Sequence[str] = ()) -> None:
        parameters = trainable(module, local)
        self._module = module
        self._loss = loss
        self._shapes = {name: one.shape for name, one in parameters.items()}
        self._sizes = [one.numel() for one in parameters.values()]
        # Each sample has a dropout mask of its own, as it has without privacy.
        self._mapped = vmap(grad(self._loss_of), in_dims=(None, 0, 0), randomness="different")

    def compute(self, flat: Tensor, batch: Samples) -> Tensor:
        """(samples, n), for at least one sample."""
        found: Tensor = self._mapped(flat, batch.inputs, batch.targets)
        return found

    def clipped_sum(self, flat: Tensor, batch: Samples, bound: float) -> Tensor:
        """The sum (n,) float64 of the batch's gradients, each clipped to the norm `bound`; zeros if it is empty."""
        total = torch.zeros(len(flat), dtype=torch.float64, device=flat.device)
        size = max(1, NUMBERS_AT_ONCE // len(flat))
        for start in range(0, len(batch), size):
            part = Samples(batch.inputs[start : start + size], batch.targets[start : start + size])
            with torch.no_grad():
                total += clip_each(self.compute(flat, part), bound).sum(dim=0)
        return total

    def _loss_of(self, flat: Tensor, one_input: Tensor, one_target: Tensor) -> Tensor:
        chunks = torch.split(flat, self._sizes)
        parameters = {
            name: chunk.view(shape) for (name, shape), chunk in zip(self._shapes.items(), chunks, strict=True)
        }
        outputs = functional_call(self._module, parameters, (one_input.unsqueeze(0),))
        return self._loss(outputs, one_target.unsqueeze(0))


def clip_each(gradients: Tensor, bound: float) -> Tensor:
    """The rows of (k, n) as float64, each of norm at most `bound`; one that is not finite becomes zero.

    Zero and not an error, because whether there is such a sample is not for others to know.
    """
    rows = gradients.double()
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    usable = norms.isfinite() & (norms > 0)
    factors = torch.where(usable, bound * (1 - _MARGIN) / norms, 0.0).clamp_max(1.0)
    return torch.where(usable, rows * factors, 0.0)


def _check_delta(delta: float, samples: int) -> None:
    """A delta of 1/n would allow one sample in n to be told outright."""
    if not 0.0 < delta * samples < 1.0:
        raise TaskError(
            f"privacy.target_delta: {delta:g} must be less than 1/{samples}, the site having {samples} training samples"
        )
