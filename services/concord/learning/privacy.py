"""What a job asks for in private training, and what a site can say of it. Must not know how it is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrivacyOptions:
    """`max_grad_norm` C (> 0): the Euclidean norm that no sample's gradient exceeds. `noise_multiplier` s (> 0): the
    noise on their sum has the deviation s C in each coordinate. `target_delta` in (0, 1): the delta at which epsilon is
    told. `target_epsilon` (> 0, or None): no gradient is computed that would take epsilon over it.
    """

    noise_multiplier: float
    max_grad_norm: float = 1.0
    target_delta: float = 1e-5
    target_epsilon: float | None = None


@dataclass(frozen=True, slots=True)
class PrivacyStatus:
    """What the training samples of a site have paid so far: the (epsilon, delta) of the presence of any one of them.

    `steps` counts noisy gradients in all lives of the site; after a crash, somewhat more than there were. `complete` is
    False if an earlier life has come to light of which nothing is noted, so that epsilon is too low. An epsilon of None
    is beyond all bounds.
    """

    epsilon: float | None
    delta: float
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    target_epsilon: float | None
    complete: bool
