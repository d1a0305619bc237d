"""The settings of an algorithm, as a job gives them. Apart from `registry`, so that algorithms can read them.

Imports nothing heavy: a job file is checked without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from concord.errors import JobError


@dataclass(frozen=True, slots=True)
class AlgorithmOptions:
    """One algorithm's settings, alike at every site; each is read only by the algorithms it names.

    name: which algorithm; `algorithm_names` lists them.
    penalty: eta of ecl, in loss per squared parameter unit (None: 1). Larger ties the sites closer and slows
        the motion they have in common.
    averaging: theta of ecl, ecl-isvr, c-ecl and sm-ecl, from above 0 to 1, no unit (None: as the algorithm has it).
        1 takes a neighbour's message whole (PDMM: fastest, but swings where news is a round late); 0.5 takes half of
        it (ADMM, calmest).
    penalty_scale: multiplies the penalty that ecl-isvr and c-ecl derive, no unit. Three to ten helps where sites drift
        apart between messages.
    gamma_scale: of sm-ecl, no unit (None: 0.25): one over the penalty is gamma_scale * 7 * learning rate times the
        larger degree, which counts as at most twice the smaller. Larger learns faster, until it diverges.
    preconditioner: of ecl, ecl-isvr and c-ecl, none or adam: whether each coordinate has a step size of its own, after
        the size of its gradients. A choice of each site; where the sites end up is the same.
    compression: of c-ecl, what a message tells: random-k coordinates, the top-k changes (which take twice the
        bytes), a random low-rank projection, or with none everything.
    keep: of c-ecl, the part of the model that one message tells, from above 0 to 1. Fewer bytes, slower agreement.
    number_format: of c-ecl, how numbers travel: full (4 bytes), float16 or int8; the last two blur the result.
    momentum: of momentum-tracking and qg-dsgdm, the factor b in [0, 1): over about 1 / (1 - b) steps, or rounds, the
        direction is averaged. The length of a step is the learning rate whatever b is.
    proximal: of fedprox, the weight of its spring, in loss per squared parameter unit. Larger ties clients closer.

    JobError if a value is out of its range.
    """

    name: str = "sm-ecl"
    penalty: float | None = None
    averaging: float | None = None
    penalty_scale: float = 1.0
    gamma_scale: float | None = None
    preconditioner: str = "none"
    compression: str = "random-k"
    keep: float = 0.1
    number_format: str = "full"
    momentum: float = 0.9
    proximal: float = 0.1

    def __post_init__(self) -> None:
        if self.penalty is not None:
            require_positive("penalty", self.penalty)
        if self.gamma_scale is not None:
            require_positive("gamma_scale", self.gamma_scale)
        require_positive("penalty_scale", self.penalty_scale)
        require_positive("proximal", self.proximal)
        if self.averaging is not None and not 0 < self.averaging <= 1:
            raise JobError(f"averaging is {self.averaging}; it must be above 0 and at most 1")
        if not 0 < self.keep <= 1:
            raise JobError(f"keep is {self.keep}; it must be above 0 and at most 1")
        if not 0 <= self.momentum < 1:
            raise JobError(f"momentum is {self.momentum}; it must be at least 0 and below 1")


def require_positive(key: str, value: float) -> None:
    """JobError unless `value` is a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise JobError(f"{key} is {value}; it must be a finite number above 0")
