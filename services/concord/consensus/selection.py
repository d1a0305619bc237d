"""Which numbers of a vector travel: all, a random few, those that changed most, or projections on a few directions.

Each selection is an orthogonal projection P that sender and receiver know alike from a small key in the message, so
that the receiver can compute u + theta P (x - u): it takes x where the key says and keeps what it had elsewhere. What
is sent is state, never a difference, so a lost message is only news not had, and no memory has to agree at the two
ends. As long as every direction is chosen again and again, the fixed point is that of sending everything. Must not
know number formats or what the vector means.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from concord.consensus.algorithm import PartLayout
from concord.errors import RefusalReason, UpdateRefused

FRESH_SHARE = 4
"""One in so many of top-k's places goes to random coordinates, so that what was lost is sent again."""

_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)


class Selection(ABC):
    """`count` numbers out of a flat vector of `size`; the key is the part of a message that says which."""

    by_change: ClassVar[bool] = False
    """Whether `choose` looks at how much each coordinate changed since it was sent."""

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self.count = count

    @abstractmethod
    def layout(self) -> dict[str, PartLayout]:
        """The parts that hold the key."""

    @abstractmethod
    def choose(self, seed: int, change: Tensor | None) -> dict[str, Tensor]:
        """A key, from a seed in [0, 2^63) and, if `by_change`, from the change (size,) since the last sending."""

    @abstractmethod
    def project(self, vector: Tensor, key: Mapping[str, Tensor]) -> Tensor:
        """The numbers (count,) that stand for the vector (size,); a new tensor."""

    @abstractmethod
    def add(self, vector: Tensor, numbers: Tensor, key: Mapping[str, Tensor]) -> None:
        """Add to the vector (size,), in place, what numbers (count,) stand for: the adjoint of `project`."""

    def check(self, key: Mapping[str, Tensor]) -> None:  # noqa: B027 - any seed is a key; only indices can be wrong
        """UpdateRefused unless a key of the right layout means something here."""


class Everything(Selection):
    """The whole vector; there is nothing to choose."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size)

    def layout(self) -> dict[str, PartLayout]:
        return {}

    def choose(self, seed: int, change: Tensor | None) -> dict[str, Tensor]:
        return {}

    def project(self, vector: Tensor, key: Mapping[str, Tensor]) -> Tensor:
        return vector.clone()

    def add(self, vector: Tensor, numbers: Tensor, key: Mapping[str, Tensor]) -> None:
        vector.add_(numbers)


class RandomK(Selection):
    """One coordinate at random out of each of `count` even runs of coordinates: 8 bytes of key, whatever the size."""

    def __init__(self, size: int, keep: float) -> None:
        super().__init__(size, _count(size, keep))

    def layout(self) -> dict[str, PartLayout]:
        return {"mask": PartLayout("int64", 1)}

    def choose(self, seed: int, change: Tensor | None) -> dict[str, Tensor]:
        return {"mask": torch.tensor([seed])}

    def project(self, vector: Tensor, key: Mapping[str, Tensor]) -> Tensor:
        return vector[self.indices(int(key["mask"]), vector.device)]

    def add(self, vector: Tensor, numbers: Tensor, key: Mapping[str, Tensor]) -> None:
        vector.index_add_(0, self.indices(int(key["mask"]), vector.device), numbers)

    def indices(self, seed: int, device: torch.device | None = None) -> Tensor:
        """The coordinates (count,) that a seed stands for, ascending and all different."""
        ends = torch.arange(self.count + 1, device=device) * self.size // self.count
        return ends[:-1] + (_random(seed, self.count, device) * ends.diff() >> 32)


class TopK(Selection):
    """The coordinates that changed most since they were sent, and some random ones: 4 bytes of key for each.

    What counts as sent may be lost, which the sender does not learn: that is what the random ones are for.
    """

    by_change: ClassVar[bool] = True

    def __init__(self, size: int, keep: float) -> None:
        super().__init__(size, _count(size, keep))
        self._fresh = RandomK(size, math.ceil(self.count / FRESH_SHARE) / size)

    def layout(self) -> dict[str, PartLayout]:
        return {"indices": PartLayout("int32", self.count)}

    def choose(self, seed: int, change: Tensor | None) -> dict[str, Tensor]:
        if change is None:
            raise ValueError("top-k chooses by change")
        urgency = change.abs()
        urgency[self._fresh.indices(seed, change.device)] = math.inf
        found, _ = urgency.topk(self.count, sorted=False).indices.sort()
        return {"indices": found.to(torch.int32)}

    def project(self, vector: Tensor, key: Mapping[str, Tensor]) -> Tensor:
        return vector[key["indices"].to(vector.device)]

    def add(self, vector: Tensor, numbers: Tensor, key: Mapping[str, Tensor]) -> None:
        vector.index_add_(0, key["indices"].to(vector.device), numbers)

    def check(self, key: Mapping[str, Tensor]) -> None:
        indices = key["indices"]
        # Ascending, the first and the last of them bound them all.
        within = int(indices[0]) >= 0 and int(indices[-1]) < self.size
        if not (within and bool((indices.diff() > 0).all())):
            raise UpdateRefused(RefusalReason.MALFORMED, f"indices must ascend within [0, {self.size})")


class LowRank(Selection):
    """The vector as a nearly square matrix M times r random orthonormal columns Q, so that M Q Q' is what is known.

    Q has one entry of +-1/sqrt(run) in each row, r equal runs of them: orthonormal to the last bit at both ends, unlike
    the result of a factorisation. Zeros fill M up, which makes P a contraction where they are. On average it tells as
    much as equally many random coordinates, but a little of all; directions fitted to M would tell more, and could not
    be known at the other end for 8 bytes.
    """

    def __init__(self, size: int, keep: float) -> None:
        self._run = math.ceil(1 / keep)
        self.rank = math.ceil(math.sqrt(size) / self._run)
        self._rows = math.ceil(size / (self.rank * self._run))
        super().__init__(size, self._rows * self.rank)

    def layout(self) -> dict[str, PartLayout]:
        return {"basis": PartLayout("int64", 1)}

    def choose(self, seed: int, change: Tensor | None) -> dict[str, Tensor]:
        return {"basis": torch.tensor([seed])}

    def project(self, vector: Tensor, key: Mapping[str, Tensor]) -> Tensor:
        matrix = vector.new_zeros(self.count * self._run)
        matrix[: self.size] = vector
        return (matrix.view(-1, self.rank, self._run) * self._basis(vector, key)).sum(-1).flatten()

    def add(self, vector: Tensor, numbers: Tensor, key: Mapping[str, Tensor]) -> None:
        matrix = numbers.view(-1, self.rank, 1) * self._basis(vector, key)
        vector.add_(matrix.flatten()[: self.size])

    def _basis(self, like: Tensor, key: Mapping[str, Tensor]) -> Tensor:
        """The entries (r, run) of Q that are not zero."""
        coins = _random(int(key["basis"]), self.rank * self._run, like.device) & 1
        return (1 - 2 * coins).view(self.rank, self._run).to(like.dtype) / math.sqrt(self._run)


def _count(size: int, keep: float) -> int:
    return min(size, math.ceil(keep * size))


def _random(seed: int, count: int, device: torch.device | None) -> Tensor:
    """`count` whole numbers in [0, 2^32): the upper halves of SplitMix64's (Steele, Lea and Flood 2014).

    Written out because the two ends must agree and may have different releases of torch, whose own generators promise
    nothing between releases.
    """
    numbers = torch.arange(1, count + 1, device=device) * _signed(_GOLDEN) + seed
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1), strict=True):
        numbers = (numbers ^ (numbers >> shift & (1 << 64 - shift) - 1)) * _signed(factor)
    return numbers >> 32 & 0xFFFFFFFF


def _signed(number: int) -> int:
    """The 64-bit number that torch, which has signed ones only, holds for an unsigned one."""
    return number - (1 << 64) if number >> 63 else number
