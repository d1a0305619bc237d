"""A module's parameters as one flat vector, so that an algorithm works on two tensors whatever the model.

Parameters that stay at their site come last, so that what neighbours hear of is one slice. Must not know what the
model is for, how its gradient is computed or who else holds a copy of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from concord.errors import TaskError
from concord.suggest import nearest

_KEY = "training.local"
_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Layer:
    """What one module holds of a flat vector: so many numbers; `matrix`: a weight of two axes or more is among them."""

    size: int
    matrix: bool = True


@dataclass(frozen=True, slots=True)
class FlatModel:
    """`primal` (n,) float32 holds all trainable parameters, `gradient` (n,) every `.grad`; contiguous.

    The last `kept` numbers of both are of the parameters that stay at the site. `layers` are the model's,
    in order, as far as neighbours hear of them.
    """

    primal: Tensor
    gradient: Tensor
    kept: int = 0
    layers: tuple[Layer, ...] = ()

    @property
    def shared(self) -> FlatModel:
        """What neighbours hear of, as views (n - kept,)."""
        size = self.primal.numel() - self.kept
        return FlatModel(self.primal[:size], self.gradient[:size], layers=self.layers)

    @property
    def own(self) -> FlatModel:
        """What stays at the site, as views (kept,)."""
        size = self.primal.numel() - self.kept
        return FlatModel(self.primal[size:], self.gradient[size:], self.kept)


def bind(module: nn.Module, storage: FlatModel | None = None, local: Sequence[str] = ()) -> FlatModel:
    """Make the module's trainable parameters, and their `.grad`, views of one flat tensor each.

    The tensors are new, or those of `storage`, which are of the right size and may be rows of something larger. The
    order is that of `trainable` with the same patterns `local`.

    Values stay as they are; gradients start at zero. A tied parameter appears once; frozen parameters and
    buffers stay outside. From then on change parameters in place only, and never set `.grad` to None.
    TaskError as `trainable`.
    """
    named = trainable(module, local)
    parameters = list(named.values())
    primal = storage.primal if storage else _flat_zeros(parameters)
    gradient = storage.gradient if storage else _flat_zeros(parameters)
    for parameter, value, slope in zip(
        parameters, _views(primal, parameters), _views(gradient, parameters), strict=True
    ):
        value.copy_(parameter.detach())
        parameter.data = value
        parameter.grad = slope
    kept = {name: named.pop(name) for name in matching(named, local)}
    return FlatModel(primal, gradient, sum(one.numel() for one in kept.values()), _layers(named))


def trainable(module: nn.Module, local: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """The trainable parameters by name in the order of the flat vector: the module's, those kept `local` last.

    `local` are patterns such as `head.*` (as a shell's, case counts). TaskError if there is no trainable parameter,
    if one is not float32 or not initialised yet, or if a pattern matches none or the patterns match all of them.
    """
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not named:
        raise TaskError(f"model has no trainable parameters: {type(module).__name__} leaves nothing to learn")
    for name, parameter in named.items():
        if is_lazy(parameter):
            raise TaskError(f"model parameter {name!r} has no shape yet: give lazy layers their sizes")
        if parameter.dtype != torch.float32:
            raise TaskError(f"model parameter {name!r} is {_dtype(parameter)}: only float32 can be trained")
    _check_patterns(named, local)
    kept = matching(named, local)
    return {name: named[name] for name in [*(name for name in named if name not in kept), *kept]}


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of the names that any of the patterns matches, in the order of the names."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def fingerprint(module: nn.Module, local: Sequence[str] = ()) -> str:
    """32 hex digits that tell one architecture from another: the same in every process and for any weights.

    Covers name, shape, dtype and kind (trainable, kept local, frozen, buffer) of every tensor, in the module's order.
    """
    digest = hashlib.blake2b(digest_size=16)
    kept = matching((name for name, one in module.named_parameters() if one.requires_grad), local)
    for name, parameter in module.named_parameters():
        kind = "local" if name in kept else "trainable" if parameter.requires_grad else "frozen"
        digest.update(_line(kind, name, parameter))
    for name, buffer in module.named_buffers():
        digest.update(_line("buffer", name, buffer))
    return digest.hexdigest()


def _layers(named: Mapping[str, nn.Parameter]) -> tuple[Layer, ...]:
    """What each module has of these, in their order: `1.weight` and `1.bias` are of one module."""
    modules = groupby(named, key=lambda name: name.rpartition(".")[0])
    members = [[named[name] for name in names] for _, names in modules]
    return tuple(Layer(sum(one.numel() for one in ours), any(one.dim() > 1 for one in ours)) for ours in members)


def _check_patterns(names: Collection[str], patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if not matching(names, [pattern]):
            raise TaskError(
                f"{_KEY}: '{pattern}' matches none of the model's parameters, which are {_listed(names)}"
                f"{_guess(names, pattern)}"
            )
    if len(matching(names, patterns)) == len(names):
        raise TaskError(
            f"{_KEY}: {_listed(patterns)} should not match all parameters, which are {_listed(names)}: there would be "
            "nothing to exchange, as with algorithm: local"
        )


def _guess(names: Collection[str], pattern: str) -> str:
    """The nearest name, or pattern for all parameters of a layer."""
    layers = sorted({name.rpartition(".")[0] for name in names if "." in name})
    guess = nearest(pattern, [*names, *(f"{layer}.*" for layer in layers)])
    return f"; did you mean '{guess}'?" if guess else ""


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown


def _flat_zeros(parameters: list[nn.Parameter]) -> Tensor:
    return torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)


def _views(flat: Tensor, parameters: list[nn.Parameter]) -> Iterator[Tensor]:
    chunks = torch.split(flat, [parameter.numel() for parameter in parameters])
    return (chunk.view(parameter.shape) for chunk, parameter in zip(chunks, parameters, strict=True))


def _line(kind: str, name: str, tensor: Tensor) -> bytes:
    return f"{kind} {name} {list(tensor.shape)} {_dtype(tensor)}\n".encode()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that hold NaN or infinity."""
    return [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point()
        and tensor.numel()
        # The extremes carry any NaN or infinity, and finding them allocates nothing.
        and not all(math.isfinite(extreme) for extreme in torch.aminmax(tensor))
    ]
