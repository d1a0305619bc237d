"""A module's parameters as one flat vector, so that an algorithm works on two tensors whatever the model.

Must not know what the model is for, how its gradient is computed or who else holds a copy of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from concord.errors import TaskError


@dataclass(frozen=True, slots=True)
class FlatModel:
    """`primal` (n,) float32 holds all trainable parameters, `gradient` (n,) every `.grad`; contiguous."""

    primal: Tensor
    gradient: Tensor


def bind(module: nn.Module, storage: FlatModel | None = None) -> FlatModel:
    """Make the module's trainable parameters, and their `.grad`, views of one flat tensor each.

    The tensors are new, or those of `storage`, which are of the right size and may be rows of something larger.

    Values stay as they are; gradients start at zero. A tied parameter appears once; frozen parameters and
    buffers stay outside. From then on change parameters in place only, and never set `.grad` to None.
    TaskError if there is no trainable parameter, or one is not float32 or not initialised yet.
    """
    parameters = _trainable(module)
    flat = storage or FlatModel(primal=_flat_zeros(parameters), gradient=_flat_zeros(parameters))
    for parameter, value, gradient in zip(
        parameters, _views(flat.primal, parameters), _views(flat.gradient, parameters), strict=True
    ):
        value.copy_(parameter.detach())
        parameter.data = value
        parameter.grad = gradient
    return flat


def fingerprint(module: nn.Module) -> str:
    """32 hex digits that tell one architecture from another: the same in every process and for any weights.

    Covers name, shape, dtype and kind (trainable, frozen, buffer) of every tensor, in the module's order.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in module.named_parameters():
        digest.update(_line("trainable" if parameter.requires_grad else "frozen", name, parameter))
    for name, buffer in module.named_buffers():
        digest.update(_line("buffer", name, buffer))
    return digest.hexdigest()


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not named:
        raise TaskError(f"model has no trainable parameters: {type(module).__name__} leaves nothing to learn")
    for name, parameter in named:
        if is_lazy(parameter):
            raise TaskError(f"model parameter {name!r} has no shape yet: give lazy layers their sizes")
        if parameter.dtype != torch.float32:
            raise TaskError(f"model parameter {name!r} is {_dtype(parameter)}: only float32 can be trained")
    return [parameter for _, parameter in named]


def _flat_zeros(parameters: list[nn.Parameter]) -> Tensor:
    return torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)


def _views(flat: Tensor, parameters: list[nn.Parameter]) -> Iterator[Tensor]:
    chunks = torch.split(flat, [parameter.numel() for parameter in parameters])
    return (chunk.view(parameter.shape) for chunk, parameter in zip(chunks, parameters, strict=True))


def _line(kind: str, name: str, tensor: Tensor) -> bytes:
    return f"{kind} {name} {list(tensor.shape)} {_dtype(tensor)}\n".encode()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
