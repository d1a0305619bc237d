"""What an exchange knows, as readings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from concord.errors import REASONS
from concord.histogram import DELIVERY, Histogram
from concord.telemetry.registry import Reading, Source
from concord.transport.circuit import CircuitState
from concord.transport.tls import SiteTls
from concord.transport.traffic import EdgeTraffic, ExchangeState


def exchange_source(state: ExchangeState, tls: SiteTls | None) -> Source:
    """Readings of an exchange, and of its certificate if it has one."""

    def read() -> Iterator[Reading]:
        yield Reading("concord_requests_unproven_total", state.unproven)
        yield Reading("concord_requests_too_often_total", state.too_often)
        for reason, count in list(state.turned_away.items()):
            yield Reading("concord_connections_turned_away_total", count, (reason,))
        yield Reading("concord_mailbox_emptied_total", state.emptied)
        yield Reading("concord_mailbox_errors_total", state.mailbox_errors)
        edges = dict(state.edges)
        for neighbour, traffic in edges.items():
            yield from _edge(neighbour, traffic)
        yield Reading("concord_delivery_seconds", Histogram.sum(DELIVERY, (one.delivery for one in edges.values())))
        yield Reading("concord_update_age_seconds", Histogram.sum(DELIVERY, (one.age for one in edges.values())))
        if tls is not None:
            yield Reading("concord_certificate_expiry_timestamp_seconds", tls.facts.until)

    return read


def _edge(neighbour: str, traffic: EdgeTraffic) -> Iterator[Reading]:
    edge = (neighbour,)
    yield Reading("concord_updates_sent_total", traffic.sent, edge)
    yield Reading("concord_updates_received_total", traffic.received, edge)
    yield Reading("concord_updates_known_total", traffic.known, edge)
    for reason, count in list(traffic.refused.items()):
        yield Reading("concord_updates_refused_total", count, (neighbour, reason.value))
    rejected: Counter[str] = Counter()
    for said, count in list(traffic.rejected.items()):
        rejected[said if said in REASONS else "other"] += count
    for said, count in rejected.items():
        yield Reading("concord_updates_rejected_total", count, (neighbour, said))
    yield Reading("concord_bytes_sent_total", traffic.bytes_out, edge)
    yield Reading("concord_bytes_received_total", traffic.bytes_in, edge)
    yield Reading("concord_delivery_attempts_total", traffic.attempts, edge)
    yield Reading("concord_delivery_failures_total", traffic.failures, edge)
    for state in CircuitState:
        yield Reading("concord_circuit_state", traffic.circuit is state, (neighbour, state.value))
    if traffic.delivery.last is not None:
        yield Reading("concord_delivery_last_seconds", traffic.delivery.last, edge)
    if traffic.age.last is not None:
        yield Reading("concord_update_age_last_seconds", traffic.age.last, edge)
