"""Hands spans to OpenTelemetry's exporter, which sends them in batches from a thread of its own.

The one module that knows OpenTelemetry; importing it needs the extra `tracing`.
"""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

import concord
from concord.telemetry.tracing import Span

_KINDS = {
    "update published": SpanKind.PRODUCER,
    "update delivered": SpanKind.CLIENT,
    "update absorbed": SpanKind.CONSUMER,
}
"""All others answer somebody's request."""
_SCOPE = InstrumentationScope("concord", concord.__version__)


class Otlp:
    """One process's way to a collector; where that is, and all else, OpenTelemetry's own variables say."""

    def __init__(self, process: str, site: str) -> None:
        about = {
            "service.name": "concord",
            "service.version": concord.__version__,
            "service.instance.id": f"{site}/{process}",
            "concord.site": site,
            "concord.process": process,
        }
        self._resource = Resource.create(about)
        self._processor = BatchSpanProcessor(OTLPSpanExporter())

    def export(self, span: Span) -> None:
        """Have it sent soon; when the queue is full it is dropped."""
        parent = None if span.parent is None else _context(span.trace, span.parent, is_remote=True)
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=_context(span.trace, span.id),
                parent=parent,
                resource=self._resource,
                attributes=span.attributes,
                kind=_KINDS.get(span.name, SpanKind.SERVER),
                start_time=span.began,
                end_time=span.ended,
                instrumentation_scope=_SCOPE,
            )
        )

    def close(self) -> None:
        """Send what is left."""
        self._processor.shutdown()


def _context(trace: int, span: int, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace, span, is_remote, TraceFlags(TraceFlags.SAMPLED))
