"""Where a simulation computes: the device that a user names, if it is here, and what makes its runs repeatable."""

from __future__ import annotations

import os
import re

import torch

from concord.errors import EnvironmentProblem, JobError

CPU = torch.device("cpu")
_NAMES = re.compile(r"cpu|cuda(:\d+)?")


def usable_device(name: str) -> torch.device:
    """The device called `cpu`, `cuda` or `cuda:1`, tried out.

    JobError for another name, EnvironmentProblem if there is no such device here.
    """
    if not _NAMES.fullmatch(name):
        raise JobError(f"--device {name!r} should be cpu, cuda, or one of several such as cuda:1")
    device = torch.device(name)
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as exc:  # the latter from a torch that was built for the CPU alone
        raise EnvironmentProblem(f"--device {name} cannot be used: {_what_is_here()}; --device cpu always can") from exc
    if device.type != "cpu":
        _make_repeatable()
    return device


def _what_is_here() -> str:
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built for the CPU alone"
    count = torch.cuda.device_count()
    last = f", cuda:0 to cuda:{count - 1}" if count > 1 else ""
    return f"torch {torch.__version__} finds {count or 'no'} CUDA device{'s' if count != 1 else ''}{last}"


def _make_repeatable() -> None:
    """Ask for algorithms whose sums are always in one order; an operation that has none warns, and still runs."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
