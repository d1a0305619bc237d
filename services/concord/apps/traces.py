"""Traces of a process, for as long as it runs, if the environment asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from concord.telemetry.tracing import Tracing, open_tracing


@contextmanager
def traces(process: str, site: str) -> Iterator[Tracing | None]:
    """What the process draws its traces with, or None; what is left is sent at the end."""
    tracing = open_tracing(process, site, os.environ)
    try:
        yield tracing
    finally:
        if tracing is not None:
            tracing.close()
