"""How many threads a trainer takes follows what its container allows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from concord.apps.processors import inference_threads, training_threads, usable_processors

AFFINITY = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("100000 100000", 1), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", AFFINITY), ("?", AFFINITY)],
)
def test_a_containers_quota_bounds_the_processors(tmp_path: Path, limit: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert usable_processors(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("150000", 1), ("-1", AFFINITY)])
def test_so_does_one_of_the_older_kind(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_processors(tmp_path) == expected


def test_without_a_container_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_processors(tmp_path / "none") == AFFINITY


def test_one_processor_is_left_for_the_network_unless_told_otherwise() -> None:
    assert training_threads(None) == max(1, usable_processors() - 1)
    assert training_threads(7) == 7


def test_inference_takes_few_unless_told_otherwise() -> None:
    assert inference_threads(None) == min(4, max(1, usable_processors() - 1))
    assert inference_threads(7) == 7
