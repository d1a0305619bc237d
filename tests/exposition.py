"""Reads what a process answers at /metrics, by Prometheus' own parser and checker."""

from __future__ import annotations

import subprocess

import httpx
from prometheus_client.parser import text_string_to_metric_families

from concord.telemetry.catalogue import GROUPS, METRICS
from tools import get_prometheus

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(url: str) -> str:
    """The metrics of the process at `url`."""
    answer = httpx.get(f"{url}/metrics", timeout=5.0)
    answer.raise_for_status()
    return answer.text


def series_of(text: str) -> Series:
    """Every sample by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def names_in(text: str) -> set[str]:
    """The metrics of ours by their names in the catalogue; AssertionError for one that is not there as it is told."""
    found = set()
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("concord_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        metric = METRICS[name]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample
        found.add(name)
    return found


def names_of(process: str) -> set[str]:
    """All that the catalogue says of one kind of process."""
    return {metric.name for group in GROUPS if process in group.processes for metric in group.metrics}


def check(text: str) -> None:
    """AssertionError with what `promtool check metrics` has to say."""
    done = subprocess.run(
        [get_prometheus.find("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
