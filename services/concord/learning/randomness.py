"""Where the randomness of private training comes from: the operating system, or a seed where nothing is at stake.

torch's own generator is a Mersenne Twister, whose next numbers follow from those before it and whose seed has 32 bits
on a CPU: fine for shuffling, no protection for anybody. Must not know what the numbers are for.
"""

from __future__ import annotations

import math
import os
from typing import Protocol

import torch
from torch import Tensor

_STEPS = 2**53
"""How many numbers there are in [0, 1) that a float64 can tell at equal distances."""


class Randomness(Protocol):
    """A source of numbers that nobody else draws from."""

    def uniform(self, count: int) -> Tensor:
        """`count` numbers in [0, 1), float64, on the CPU."""


class SystemRandomness:
    """The operating system's cryptographic generator: what has been drawn says nothing about what will be."""

    def uniform(self, count: int) -> Tensor:
        """As `Randomness.uniform`, with 53 random bits each."""
        if not count:
            return torch.empty(0, dtype=torch.float64)
        bits = torch.frombuffer(bytearray(os.urandom(8 * count)), dtype=torch.int64)
        return bits.bitwise_and(_STEPS - 1).double() / _STEPS


class SeededRandomness:
    """Repeatable, for a simulation: a run with its seed protects nobody."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def uniform(self, count: int) -> Tensor:
        """As `Randomness.uniform`."""
        return torch.rand(count, generator=self._generator, dtype=torch.float64)


def normal(source: Randomness, count: int) -> Tensor:
    """`count` independent standard normal numbers, float64 (Box and Muller 1958)."""
    half = (count + 1) // 2
    drawn = source.uniform(2 * half)
    radius = (-2 * torch.log1p(-drawn[:half])).sqrt()  # of 1 - u, which is never 0
    angle = 2 * math.pi * drawn[half:]
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]
