"""How many threads a trainer takes follows what its container allows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from concord.apps.processors import training_threads, usable_processors


@pytest.mark.parametrize(
    ("limit", "expected"), [("100000 100000", 1), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", None)]
)
def test_a_containers_quota_bounds_the_processors(tmp_path: Path, limit: str, expected: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(limit + "\n")
    assert usable_processors(file) == (expected or len(os.sched_getaffinity(0)))


def test_without_a_container_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_processors(tmp_path / "none") == len(os.sched_getaffinity(0))


def test_one_processor_is_left_for_the_network_unless_told_otherwise() -> None:
    assert training_threads(None) == max(1, usable_processors() - 1)
    assert training_threads(7) == 7
