"""What a split deals out, and the kind it goes by: single samples, or groups of them that stay together.

Must not know the sites.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concord.errors import SplitError


@dataclass(frozen=True, slots=True)
class Units:
    """`kinds` (u,) int64 has one of each unit; `members` are the indices of its samples."""

    kinds: Tensor
    members: tuple[tuple[int, ...], ...]


def units_of(kinds: Tensor, groups: Tensor | None) -> Units:
    """Each sample by itself, or one unit per number in `groups` (n,), in ascending order of these.

    A group counts as of the kind that is rarest among all samples, of those its samples have.
    """
    if groups is None:
        return Units(kinds, tuple((index,) for index in range(len(kinds))))
    if groups.shape != kinds.shape:
        raise SplitError(f"groups {tuple(groups.shape)} do not match {len(kinds)} samples")
    rarity = torch.bincount(kinds.long()).tolist()
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(index)
    ordered = [members[group] for group in sorted(members)]
    said: list[int] = kinds.tolist()
    rarest = [min((said[index] for index in group), key=lambda kind: (rarity[kind], kind)) for group in ordered]
    return Units(torch.tensor(rarest), tuple(tuple(group) for group in ordered))


def kinds_of(targets: Tensor, what: str) -> Tensor:
    """One integer kind per sample (n,): its class; of several labels (n, labels) 0/1 the one that is rarest among all.

    A sample without a label is of a kind of its own, whose number is that of the labels. SplitError, naming `what`
    asks, for targets of another form.
    """
    if is_multi_label(targets):
        counts = targets.sum(dim=0).long()
        # Unlike the counts, these have no ties.
        order = torch.argsort(counts, stable=True)
        held = torch.cat([targets[:, order] > 0, torch.ones(len(targets), 1, dtype=torch.bool)], dim=1)
        return torch.cat([order, torch.tensor([targets.shape[1]])])[held.int().argmax(dim=1)]
    if targets.dim() != 1 or targets.is_floating_point() or targets.is_complex():
        shape, dtype = tuple(targets.shape), str(targets.dtype).removeprefix("torch.")
        raise SplitError(
            f"{what} needs one integer class per sample, or labels that are 0 or 1; the targets are {dtype} of shape "
            f"{shape}: use iid"
        )
    return targets


def is_multi_label(targets: Tensor) -> bool:
    """Whether the targets (n, labels) are 0 or 1 throughout."""
    return targets.dim() == 2 and not targets.is_complex() and bool(((targets == 0) | (targets == 1)).all())
