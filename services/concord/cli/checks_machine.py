"""What `concord doctor` looks at on the machine itself: Python, torch, disk, clock, and the job's data."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from concord.cli.findings import Finding, Level, Patient
from concord.errors import JobError

LEAST_PYTHON = (3, 11)
LEAST_FREE_BYTES = 500_000_000
"""Below this much free space, checkpoints and downloads may not fit."""


def check_python(_: Patient) -> Iterator[Finding]:
    """The interpreter is new enough."""
    found = f"Python {platform.python_version()}"
    if sys.version_info[:2] >= LEAST_PYTHON:
        yield Finding(Level.OK, "python", found)
    else:
        yield Finding(Level.FAIL, "python", found, "install Python 3.11 or newer")


def check_torch(_: Patient) -> Iterator[Finding]:
    """torch is there and can compute."""
    try:
        import torch

        total = float(torch.ones(8).sum())
    except (ImportError, OSError) as error:
        yield Finding(Level.FAIL, "torch", f"cannot be imported: {error}", "pip install 'torch>=2.6'")
        return
    level = Level.OK if total == 8.0 else Level.FAIL
    yield Finding(level, "torch", f"torch {version('torch')}, {torch.get_num_threads()} threads")


def check_disk(patient: Patient) -> Iterator[Finding]:
    """There is a place for checkpoints that can be written and is not full."""
    folder = patient.settings.state_dir.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        remedy = "set CONCORD_STATE_DIR to a writable folder"
        yield Finding(Level.FAIL, "disk", f"{there}: {error.strerror}", remedy)
        return
    level = Level.OK if free >= LEAST_FREE_BYTES else Level.WARN
    remedy = "" if level is Level.OK else "make room, or set CONCORD_STATE_DIR to another disk"
    yield Finding(level, "disk", f"{free / 1e9:.1f} GB free at {there}", remedy)


def check_clock(_: Patient) -> Iterator[Finding]:
    """The clock is not before the day this package was written to the disk."""
    written = Path(__file__).stat().st_mtime
    now = time.time()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < written:
        found = f"{text} is before this package was installed"
        yield Finding(Level.FAIL, "clock", found, "set the clock, e.g. by NTP: signatures carry the time")
    else:
        yield Finding(Level.OK, "clock", text)


def check_topology(patient: Patient) -> Iterator[Finding]:
    """What the graph of a valid job looks like; a job with a wrong one is not valid."""
    if patient.job is None:
        return
    graph = patient.job.topology_graph()
    degrees = ", ".join(str(number) for number in sorted({graph.degree(site) for site in graph.sites}))
    text = f"{patient.job.topology.kind}: {len(graph.sites)} sites, {len(graph.edges)} edges, degree {degrees}"
    yield Finding(Level.OK, "topology", f"{text}; connected")


def check_data(patient: Patient) -> Iterator[Finding]:
    """The task can be built, and every site gets its data."""
    if patient.job is None:
        return
    from concord.cli.data import class_counts

    try:
        counts = class_counts(patient.job)
    except JobError as error:
        yield Finding(Level.FAIL, "data", str(error), "correct the task or the split of the job as it says")
        return
    total = sum(site.samples for site in counts.values())
    yield Finding(Level.OK, "data", f"{total} training samples at {len(counts)} sites")
