"""What inference knows, as readings."""

from __future__ import annotations

from collections.abc import Iterator

from concord.serving.batching import Batcher
from concord.serving.counters import InferenceState
from concord.serving.predictor import Predictor
from concord.serving.shadow import Shadow
from concord.serving.watcher import Watcher
from concord.telemetry.registry import Reading, Source


def inference_source(
    state: InferenceState, batcher: Batcher, predictor: Predictor, watcher: Watcher, shadow: Shadow
) -> Source:
    """Readings of requests, their batches, and the models that answer them."""

    def read() -> Iterator[Reading]:
        yield from _requests(state)
        yield from _batches(batcher)
        yield from _models(predictor, watcher)
        if shadow.share:
            yield Reading("concord_shadow_requests_total", shadow.state.compared)
            yield Reading("concord_shadow_disagreements_total", shadow.state.different_winners)

    return read


def _requests(state: InferenceState) -> Iterator[Reading]:
    for (route, status), count in list(state.requests.items()):
        yield Reading("concord_inference_requests_total", count, (route, str(status)))
    for route, seconds in list(state.latency.items()):
        yield Reading("concord_inference_seconds", seconds, (route,))
    yield Reading("concord_inference_rows_total", state.rows)


def _batches(batcher: Batcher) -> Iterator[Reading]:
    yield Reading("concord_inference_batches_total", batcher.state.batches)
    yield Reading("concord_inference_batched_requests_total", batcher.state.requests)
    yield Reading("concord_inference_batched_rows_total", batcher.state.rows)
    yield Reading("concord_inference_queue_rows", batcher.waiting)
    yield Reading("concord_inference_queue_limit_rows", batcher.limits.queue_rows)
    yield Reading("concord_inference_queue_refused_total", batcher.state.refused)
    yield Reading("concord_inference_abandoned_total", batcher.abandoned)


def _models(predictor: Predictor, watcher: Watcher) -> Iterator[Reading]:
    served = watcher.served
    yield Reading("concord_model_ready", served is not None)
    if served is not None:
        yield Reading("concord_model_version", served.version)
        yield Reading("concord_model_round", served.round)
        yield Reading("concord_model_created_timestamp_seconds", served.created_at)
    yield Reading("concord_model_swaps_total", predictor.state.swaps)
    yield Reading("concord_model_refused_total", sum(predictor.state.refused.values()))
    yield Reading("concord_model_held_back_total", watcher.state.held_back_total)
    yield Reading("concord_model_following", watcher.state.following)
