"""A model as the blob of a snapshot, and back. The one place that knows what a snapshot's blob holds.

The blob is sealed and has the tensors of the module's state dict: parameters and buffers by their own names.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from concord.errors import RefusalReason, SealError, SnapshotRefused
from concord.sealed import seal, unseal
from concord.serving.tensors import all_finite


def pack_model(module: nn.Module, about: Mapping[str, str] | None = None) -> bytes:
    """The module's parameters and buffers, sealed; `about` is text for people and tools (task, classes)."""
    return seal(module.state_dict(), about or {})


def load_into(module: nn.Module, blob: bytes) -> dict[str, str]:
    """Copy a packed model into a module of the same form; returns the text packed with it.

    SnapshotRefused, and no change to the module, if the blob is torn (CHECKSUM), has other names, shapes or
    dtypes than the module (LAYOUT), or holds NaN or infinity (NOT_FINITE).
    """
    try:
        tensors, about = unseal(blob)
    except SealError as error:
        raise SnapshotRefused(RefusalReason.CHECKSUM, str(error)) from error
    _check_layout(module.state_dict(), tensors)
    _check_finite(tensors)
    module.load_state_dict(tensors)
    return about


def _check_layout(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    for name in sorted(ours.keys() | theirs.keys()):
        expected, found = _form(ours.get(name)), _form(theirs.get(name))
        if expected != found:
            raise SnapshotRefused(RefusalReason.LAYOUT, f"tensor {name!r} is {found}; the model has {expected}")


def _form(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not all_finite(tensor):
            raise SnapshotRefused(RefusalReason.NOT_FINITE, f"tensor {name!r} holds NaN or infinity")
