"""Gradients made smaller along the mean of what each layer is fed, where a model's curvature is greatest.

After a ReLU all inputs of a layer are positive, so their mean m is far from zero, and a small change of the weights
along it moves every output alike: the curvature there is several times that of any other direction (LeCun, Kanter and
Solla 1991; Schraudolph 1998, "Centering neural network gradient factors"). Sites with different classes pull on the
same direction hardest, because it says how likely each class is.

With [W b] the weights and biases of a layer, g their gradient and v = (m, 1) / |(m, 1)|:

    g <- g - (1 - s) (g v) v^T                             s the share that is left, in (0, 1]

This is D g with D symmetric and positive definite, so wherever the sum of all sites' gradients is zero, that of D g is,
and the other way round: no fixed point moves if D is the same at all sites. Therefore m is not taken from a site's data
but from noise that is the same everywhere, sent through the site's own model; where sites agree on the model, they
agree on D. Must not know where the gradient comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from concord.errors import TaskError

PROBES = 32
"""Inputs of noise."""
PERIOD = 8
"""Gradients from one look at the means to the next."""
_SEED = 0
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class MeanDamping:
    """Damps the gradients of `module`, in place, to `share` (0 < share <= 1) of what they are along the mean inputs.

    Each parameter that learns has its `.grad`. Linear layers and convolutions of one group are damped where their
    weights learn, others are left alone. `inputs` (n, ...) are of the kind that the model takes. TaskError if they are
    neither bytes nor floating point numbers, or with the `obstacle` of a model that has one.
    """

    def __init__(self, module: nn.Module, inputs: Tensor, share: float) -> None:
        self._module = module
        self._share = share
        self._probes = probes(inputs)
        why = obstacle(module)
        if why:
            raise TaskError(f"training.mean_damping: {why}")
        self._layers = dict(_damped(module))
        self._since = 0
        self._directions = self._look()

    def apply(self) -> None:
        """Damp the gradient that is in the parameters' `.grad`; every `PERIOD` times with a new look at the means."""
        if self._since == PERIOD:
            self._directions, self._since = self._look(), 0
        self._since += 1
        for name, direction in self._directions.items():
            _damp(self._layers[name], direction, 1 - self._share)

    def state(self) -> dict[str, Tensor]:
        """What the next gradients depend on, as copies."""
        directions = {f"direction.{name}": one.clone() for name, one in self._directions.items()}
        return {**directions, "since": torch.tensor(self._since)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for name, direction in self._directions.items():
            direction.copy_(state[f"direction.{name}"])
        self._since = int(state["since"])

    def _look(self) -> dict[str, Tensor]:
        """v of each layer that is used, (inputs of one output + 1,), at the model as it is."""
        means: dict[str, Tensor] = {}

        def take(name: str, layer: Layer, given: tuple[Tensor, ...]) -> None:
            means[name] = _mean_input(layer, given[0])

        hooks = [
            layer.register_forward_pre_hook(lambda layer, given, name=name: take(name, layer, given))
            for name, layer in self._layers.items()
        ]
        training = self._module.training
        self._module.eval()  # no chance, and no running average of noise
        try:
            with torch.no_grad():
                self._module(self._probes)
        finally:
            self._module.train(training)
            for hook in hooks:
                hook.remove()
        return {name: _direction(mean) for name, mean in means.items()}


def obstacle(module: nn.Module) -> str:
    """Why the gradients of a model cannot be damped, in words; empty if they can.

    Running averages are each site's own, so that sites that agree on the model would be damped differently.
    """
    if any(name.rpartition(".")[2] == "running_mean" for name, _ in module.named_buffers()):
        return "the model has running averages (BatchNorm), which differ by site"
    if not any(True for _ in _damped(module)):
        return "the model has no linear layer or convolution whose weights learn"
    return ""


def probes(inputs: Tensor) -> Tensor:
    """Noise like `inputs` (n, ...) in kind and shape, (PROBES, ...) on their device, the same at every site."""
    generator = torch.Generator().manual_seed(_SEED)
    shape = (PROBES, *inputs.shape[1:])
    if inputs.dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(inputs.device)
    if inputs.is_floating_point():
        return torch.randn(shape, generator=generator).to(inputs.device, inputs.dtype)
    kind = str(inputs.dtype).removeprefix("torch.")
    raise TaskError(
        f"training.mean_damping: needs inputs that are bytes or floating point numbers, found {kind}; 1 is without"
    )


def _damped(module: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Layers by name whose gradients can be damped; one whose weight two of them share only once."""
    seen: set[int] = set()
    for name, layer in module.named_modules():
        if not isinstance(layer, _LAYERS) or getattr(layer, "groups", 1) != 1 or id(layer.weight) in seen:
            continue
        if layer.weight.requires_grad:
            seen.add(id(layer.weight))
            yield name, layer


def _mean_input(layer: Layer, given: Tensor) -> Tensor:
    """m for the weights of one output; of a convolution each channel's mean stands for all places of the kernel."""
    if isinstance(layer, nn.Linear):
        return given.reshape(-1, layer.in_features).mean(0)
    channels = given.transpose(1, -1).reshape(-1, layer.in_channels).mean(0)
    return channels.repeat_interleave(math.prod(layer.kernel_size))


def _direction(mean: Tensor) -> Tensor:
    return nn.functional.normalize(torch.cat([mean, mean.new_ones(1)]), dim=0)


def _damp(layer: Layer, direction: Tensor, part: float) -> None:
    """Take this part of the gradient along the direction out; without a trained bias, of the weights alone."""
    weight = cast(Tensor, layer.weight.grad).view(len(layer.weight), -1)
    along, last = direction[:-1], direction[-1]
    if layer.bias is None or not layer.bias.requires_grad:
        along = nn.functional.normalize(along, dim=0)
        weight.addr_(weight @ along, along, alpha=-part)
        return
    bias = cast(Tensor, layer.bias.grad)
    length = torch.addmv(bias * last, weight, along)
    weight.addr_(length, along, alpha=-part)
    bias.addcmul_(length, last, value=-part)
