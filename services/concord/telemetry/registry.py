"""The registry of one process: readings, taken when somebody scrapes, as families of the exposition format."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

import concord
from concord.histogram import Histogram
from concord.telemetry.catalogue import METRICS


class Reading(NamedTuple):
    """One series as it is now; `labels` are the values for the labels of the catalogue, in its order."""

    name: str
    value: float | Histogram
    labels: tuple[str, ...] = ()


Source = Callable[[], Iterable[Reading]]
"""Reads the state of something; called on the event loop, so it must not wait."""


class Telemetry:
    """What a process of this kind tells of itself, from these sources, and of its memory, processor time and files."""

    def __init__(self, process: str, *sources: Source) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Readings((lambda: [_build(process)], *sources)))
        ProcessCollector(registry=self._registry)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All of it in the best format that the header `Accept` names, and that format's content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def _build(process: str) -> Reading:
    return Reading("concord_build_info", 1, (concord.__version__, process))


class _Readings(Collector):
    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = tuple(sources)

    def collect(self) -> Iterator[Family]:
        """In the order of the readings; all of one name are one family."""
        families: dict[str, Family] = {}
        for source in self._sources:
            for reading in source():
                family = families.get(reading.name)
                if family is None:
                    family = families[reading.name] = _family(reading.name)
                _add(family, reading)
        yield from families.values()


def _family(name: str) -> Family:
    metric = METRICS[name]
    return Family(name.removesuffix("_total"), metric.help, metric.kind.value)


def _add(family: Family, reading: Reading) -> None:
    labels = dict(zip(METRICS[reading.name].labels, reading.labels, strict=True))
    if isinstance(reading.value, Histogram):
        for bound, count in _cumulative(reading.value):
            family.add_sample(f"{reading.name}_bucket", labels | {"le": bound}, count)
        family.add_sample(f"{reading.name}_count", labels, reading.value.count)
        family.add_sample(f"{reading.name}_sum", labels, reading.value.total)
    else:
        family.add_sample(reading.name, labels, float(reading.value))


def _cumulative(histogram: Histogram) -> Iterator[tuple[str, float]]:
    bounds = (*map(floatToGoString, histogram.bounds), "+Inf")
    return zip(bounds, itertools.accumulate(histogram.counts), strict=True)
