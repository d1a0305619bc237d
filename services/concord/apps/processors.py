"""How many processors this process may use, as its container and its affinity allow; torch only sees the machine's."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where a container sees its own limits."""
_MOST_FOR_INFERENCE = 4


def usable_processors(cgroup: Path = CGROUP) -> int:
    """At least 1; a quota of 1.5 processors counts as 1, so that threads never wait for a quota to be refilled."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        allowed = os.cpu_count() or 1
    return max(1, math.floor(min(allowed, _quota(cgroup))))


def training_threads(chosen: int | None) -> int:
    """Threads for a trainer's tensors: as chosen, or one fewer than there are processors, left for the network half.

    More threads than free processors cost far more than they bring: with every processor claimed and a busy
    neighbour on one of them, small models trained at a quarter of their speed.
    """
    return chosen or max(1, usable_processors() - 1)


def inference_threads(chosen: int | None) -> int:
    """The same for inference, but few unless chosen: a request is a row or a few, which many threads only slow down."""
    return chosen or min(training_threads(None), _MOST_FOR_INFERENCE)


def _quota(cgroup: Path) -> float:
    """Processors by a container's quota; infinite without a container, or with one that has no limit."""
    try:
        if (cgroup / "cpu.max").exists():  # version 2
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        limit = int(quota) / int(period)
    except (OSError, ValueError):  # no such files, or "max"
        return float("inf")
    return limit if limit > 0 else float("inf")  # version 1 says -1 for none
