"""The main function of a site's process, forked from a warm parent so that it starts as fast as a fork does."""

from __future__ import annotations

from chaos import wallclock  # first: it takes the place of the wall clock  # isort: skip

import ctypes
import os
import signal
from importlib import import_module
from pathlib import Path

from concord.job import Job
from concord.settings import Settings

MODULES = {
    "trainer": "concord.apps.trainer",
    "exchange": "concord.apps.exchange",
    "inference": "concord.apps.inference",
    "site": "concord.apps.combined",
}
_PR_SET_PDEATHSIG = 1
_CAPABILITY_VERSION = 0x20080522
_OVERRIDES = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


def work(kind: str, job: Job, settings: Settings, log: Path, clock: Path) -> None:
    """Be one process of a site; ends with the parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _obey_modes(libc)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    wallclock.follow(clock)
    import_module(MODULES[kind]).run(job, settings)


def _obey_modes(libc: ctypes.CDLL) -> None:
    """Also where root runs the tests, a folder that is read-only can only be read."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    if libc.capget(header, sets) == 0:
        for which in (0, 1):
            sets[which] &= ~_OVERRIDES
        libc.capset(header, sets)
