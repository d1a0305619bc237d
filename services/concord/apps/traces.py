"""Traces of a process, for as long as it runs, if OpenTelemetry's own variables ask for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from concord.errors import EnvironmentProblem
from concord.telemetry.tracing import Tracing

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
RATIO = "OTEL_TRACES_SAMPLER_ARG"


@contextmanager
def traces(process: str, site: str) -> Iterator[Tracing | None]:
    """What the process draws its traces with, or None; what is left is sent at the end."""
    tracing = open_tracing(process, site, os.environ)
    try:
        yield tracing
    finally:
        if tracing is not None:
            tracing.close()


def open_tracing(process: str, site: str, environ: Mapping[str, str]) -> Tracing | None:
    """What OpenTelemetry's own variables ask for; None if they name no endpoint. EnvironmentProblem if it cannot be."""
    if not any(environ.get(name) for name in ENDPOINTS):
        return None
    ratio = _ratio(environ)
    try:
        from concord.telemetry.otlp import Otlp
    except ImportError as error:
        raise EnvironmentProblem(
            f"{' or '.join(ENDPOINTS)} is set, but traces need what is not installed ({error}): "
            "pip install 'concord-edge[tracing]', or unset it"
        ) from error
    otlp = Otlp(process, site)
    return Tracing(otlp.export, otlp.close, ratio)


def _ratio(environ: Mapping[str, str]) -> float:
    text = environ.get(RATIO) or "1"
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        raise EnvironmentProblem(f"{RATIO} is {text!r}; it should be the share of traces to keep, from 0 to 1")
    return ratio
