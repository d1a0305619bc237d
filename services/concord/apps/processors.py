"""How many processors this process may use, as its container and its affinity allow; torch only sees the machine's."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""The quota and the period of a container's processor time (cgroup v2)."""


def usable_processors(limit_file: Path = CGROUP_LIMIT) -> int:
    """At least 1; a quota of 1.5 processors counts as 1, so that threads never wait for a quota to be refilled."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        allowed = os.cpu_count() or 1
    try:
        quota, period = limit_file.read_text().split()
        allowed = min(allowed, math.floor(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no container, or one without a limit ("max")
    return max(1, allowed)


def training_threads(chosen: int | None) -> int:
    """Threads for a trainer's tensors: as chosen, or one fewer than there are processors, left for the network half.

    More threads than free processors cost far more than they bring: with every processor claimed and a busy
    neighbour on one of them, small models trained at a quarter of their speed.
    """
    return chosen or max(1, usable_processors() - 1)
