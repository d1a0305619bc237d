"""Inputs with their targets, and how sites and a pool hold them. Must not know where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from concord.errors import TaskError


@dataclass(frozen=True, slots=True)
class Samples:
    """`inputs` (n, ...) and `targets` (n, ...) in the same order; TaskError if their first sizes differ."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if self.inputs.dim() == 0 or self.targets.dim() == 0:
            raise TaskError("samples need a first dimension that counts them; found a single number")
        # Not len(): a tensor's takes three times as long, and a batch is made at every step.
        if self.inputs.shape[0] != self.targets.shape[0]:
            raise TaskError(f"{len(self.inputs)} inputs do not match {len(self.targets)} targets")

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def select(self, indices: Tensor) -> Samples:
        """The samples at `indices` (k,) int64, in that order, as copies."""
        return Samples(self.inputs.index_select(0, indices), self.targets.index_select(0, indices))

    def to(self, device: torch.device) -> Samples:
        """The samples on a device; these very tensors if they are there already."""
        return Samples(self.inputs.to(device), self.targets.to(device))

    @classmethod
    def concatenate(cls, parts: list[Samples]) -> Self:
        """All samples of `parts` (at least one), one part after the other."""
        return cls(torch.cat([part.inputs for part in parts]), torch.cat([part.targets for part in parts]))


@dataclass(frozen=True, slots=True)
class SiteData:
    """What one site holds: `train` to learn from, `validation` to measure with."""

    train: Samples
    validation: Samples


@dataclass(frozen=True, slots=True)
class Pool:
    """All samples of a task in one place: `train` is dealt out to the sites, `test` is common to all.

    `groups` (n,) int64, if given, numbers whose each training sample is, such as a patient's: what is of one group
    stays together. TaskError if it has another length.
    """

    train: Samples
    test: Samples
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and self.groups.shape != (len(self.train),):
            raise TaskError(f"groups {tuple(self.groups.shape)} do not match {len(self.train)} training samples")

    def to(self, device: torch.device) -> Pool:
        """The samples on a device."""
        return Pool(self.train.to(device), self.test.to(device))


def as_samples(value: object, origin: str) -> Samples:
    """`value` if it is Samples, or Samples of a pair of tensors; TaskError naming `origin` otherwise."""
    if isinstance(value, Samples):
        return value
    match value:
        case (Tensor() as inputs, Tensor() as targets):
            return Samples(inputs, targets)
    raise TaskError(f"{origin} must be Samples or a pair (inputs, targets) of tensors, not {kind_of(value)}")


def kind_of(value: object) -> str:
    """How an error message names a value's type: `a tuple of 3 (Tensor, Tensor, int)`, `a str`."""
    if isinstance(value, tuple | list):
        inner = ", ".join(type(item).__name__ for item in value[:4])
        return f"a {type(value).__name__} of {len(value)} ({inner})"
    return "None" if value is None else f"a {type(value).__name__}"
