"""A model as the blob of a snapshot, and back. The one place that knows what a snapshot's blob holds.

The blob is sealed and has the tensors of the module's state dict: parameters and buffers by their own names. Those of
the site's own variant of the model, if it has one, are there a second time, under names that begin with `personal:`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from concord.errors import RefusalReason, SealError, SnapshotRefused
from concord.sealed import seal, view
from concord.serving.tensors import all_finite

PERSONAL = "personal:"


def pack_model(module: nn.Module, personal: Mapping[str, Tensor] | None = None) -> bytes:
    """The module's parameters and buffers, sealed; `personal` holds those, by name, that the site's own variant has."""
    own = {PERSONAL + name: tensor for name, tensor in (personal or {}).items()}
    return seal(module.state_dict() | own, {})


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A model, and the site's own variant of it, which shares with it what is the same; None if there is none."""

    module: nn.Module
    personal: nn.Module | None


@dataclass(frozen=True, slots=True)
class _Form:
    """What a tensor of a module is like; `stride` is how it lies in memory."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class Blueprint:
    """Makes modules of one form from packed models, without copying weights; keeps no weights itself."""

    def __init__(self, module: nn.Module) -> None:
        """Takes the module over: it must not be used any more."""
        self._module = module
        self._members = module.state_dict(keep_vars=True)
        self._forms = {name: _form(tensor) for name, tensor in self._members.items()}
        for parameter in module.parameters():
            parameter.data = torch.empty(0, dtype=parameter.dtype)

    def unpack(self, blob: bytes) -> Unpacked:
        """A module whose parameters lie in the blob's own memory, which must not be written to; buffers are copies.

        SnapshotRefused if the blob is torn (CHECKSUM), has other names, shapes or dtypes than the module (LAYOUT), or
        holds NaN or infinity (NOT_FINITE).
        """
        try:
            tensors, _ = view(blob)
        except SealError as error:
            raise SnapshotRefused(RefusalReason.CHECKSUM, str(error)) from error
        own = {name.removeprefix(PERSONAL): tensors.pop(name) for name in list(tensors) if name.startswith(PERSONAL)}
        self._check(tensors, self._forms)
        self._check(own, {name: form for name, form in self._forms.items() if name in own})
        members = {name: self._member(name, tensor) for name, tensor in tensors.items()}
        if not own:
            return Unpacked(self._assemble(members), None)
        others = {name: self._member(name, tensor) for name, tensor in own.items()}
        return Unpacked(self._assemble(members), self._assemble(members | others))

    def _member(self, name: str, tensor: Tensor) -> Tensor:
        form = self._forms[name]
        if tensor.stride() != form.stride:
            tensor = torch.empty_strided(form.shape, form.stride, dtype=form.dtype).copy_(tensor)
        if isinstance(self._members[name], nn.Parameter):
            return nn.Parameter(tensor, requires_grad=False)
        return tensor.clone()  # a module may write to its buffers

    def _assemble(self, members: Mapping[str, Tensor]) -> nn.Module:
        # A deep copy that finds the tensors already copied; shared ones stay shared, whichever name comes first.
        memo: dict[int, object] = {id(self._members[name]): tensor for name, tensor in members.items()}
        return copy.deepcopy(self._module, memo)

    def _check(self, tensors: Mapping[str, Tensor], forms: Mapping[str, _Form]) -> None:
        for name in sorted(forms.keys() | tensors.keys()):
            expected = str(forms.get(name, "absent"))
            found = str(_form(tensors[name])) if name in tensors else "absent"
            if expected != found:
                raise SnapshotRefused(RefusalReason.LAYOUT, f"tensor {name!r} is {found}; the model has {expected}")
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not all_finite(tensor):
                raise SnapshotRefused(RefusalReason.NOT_FINITE, f"tensor {name!r} holds NaN or infinity")


def _form(tensor: Tensor) -> _Form:
    return _Form(tensor.dtype, tuple(tensor.shape), tensor.stride())
