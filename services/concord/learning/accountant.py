"""How much privacy so many noisy gradients have cost: Renyi accounting of the sampled Gaussian mechanism, by Opacus.

Mironov, Talwar and Zhang 2019 (arXiv:1908.10530), turned into (epsilon, delta) after Balle et al. 2020. Valid for
batches that each sample enters by a coin of its own (Poisson), also if each gradient is asked for in the light of all
before it. The extra `privacy` brings Opacus; nothing else of it is used. Must not know models, files or sites.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from concord.errors import TaskError

_ORDERS = (*(1 + tenth / 10 for tenth in range(1, 100)), *map(float, range(11, 64)), 80.0, 128.0, 256.0, 512.0, 1024.0)
MOST_STEPS = 10**9
"""Gradients beyond which nobody counts."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One noisy gradient: each sample is in it with probability `sample_rate` in (0, 1], and the noise's deviation is
    `noise_multiplier` (> 0) times the most that one sample can add."""

    noise_multiplier: float
    sample_rate: float


Spent = Mapping[Mechanism, int]
"""How many gradients of each mechanism have been computed."""


def epsilon(spent: Spent, delta: float) -> float:
    """The epsilon at this delta of all that was spent: 0 if nothing was, infinite if there is no bound.

    TaskError without Opacus.
    """
    if not any(spent.values()):
        return 0.0
    return _epsilon(_total(spent.items()), delta)


def steps_within(target: float, delta: float, mechanism: Mechanism, before: Spent) -> int:
    """How many more gradients of a mechanism keep epsilon at or below `target`; at most MOST_STEPS."""
    base, each = _total(before.items()), _total([(mechanism, 1)])

    def fits(steps: int) -> bool:
        return _epsilon([one + steps * more for one, more in zip(base, each, strict=True)], delta) <= target

    low, high = 0, 1
    while high < MOST_STEPS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return min(low, MOST_STEPS)


def _total(spent: Iterable[tuple[Mechanism, int]]) -> list[float]:
    """The Renyi divergence at each order; it adds up over what is done one after the other."""
    total = [0.0] * len(_ORDERS)
    for mechanism, steps in spent:
        total = [one + steps * more for one, more in zip(total, _divergence(mechanism), strict=True)]
    return total


@cache
def _divergence(mechanism: Mechanism) -> tuple[float, ...]:
    """Of one gradient. An order at which Opacus finds no number counts as infinite: it is not used."""
    try:
        from opacus.accountants.analysis import rdp
    except ModuleNotFoundError as exc:
        raise TaskError("privacy: counting what it costs needs Opacus: pip install 'concord-edge[privacy]'") from exc
    found = rdp.compute_rdp(
        q=mechanism.sample_rate, noise_multiplier=mechanism.noise_multiplier, steps=1, orders=list(_ORDERS)
    )
    return tuple(number if math.isfinite(number) else math.inf for number in map(float, found))


def _epsilon(divergence: list[float], delta: float) -> float:
    from opacus.accountants.analysis import rdp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the best order may be the first or the last: still a bound, if a wider one
        found, _ = rdp.get_privacy_spent(orders=list(_ORDERS), rdp=divergence, delta=delta)
    return max(0.0, float(found))
