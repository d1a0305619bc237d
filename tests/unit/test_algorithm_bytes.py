"""What docs/algorithms.md says that a message costs, against what the algorithms send."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from concord.consensus.algorithm import LocalStep, payload_bytes
from concord.consensus.compression import compression_names
from concord.consensus.registry import (
    AlgorithmOptions,
    algorithm_names,
    build_algorithm,
    build_client,
    server_algorithm_names,
)

DOCS = Path(__file__).parents[2] / "docs" / "algorithms.md"
SIZE = 1 << 16
KEEP = 1 / 16
TERM = re.compile(r"([\d.]+) ?(tau )?(P)?")


def column(first: str, wanted: str) -> dict[str, str]:
    """The cells under `wanted`, by the name that the first cell of their row holds, in the table headed `first`."""
    rows = _rows(first)
    place = next(rows).index(wanted)
    next(rows)  # the rule
    return {row[0].split("`")[1]: row[place] for row in rows}


def _rows(first: str) -> Iterator[list[str]]:
    text = DOCS.read_text().partition(f"\n| {first} |")[2]
    assert text, f"no table begins with {first}"
    for line in f"| {first} |{text}".splitlines():
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def value(formula: str) -> float:
    """Of a sum of terms such as `4 tau P` and `8`, for SIZE parameters and a tau of KEEP."""
    terms = [TERM.fullmatch(term) for term in formula.split(" + ")]
    return sum(_term(term) for term in terms)


def _term(term: re.Match[str] | None) -> float:
    assert term is not None
    return float(term[1]) * (KEEP if term[2] else 1) * (SIZE if term[3] else 1)


def sent(name: str, compression: str = "random-k", number_format: str = "full") -> int:
    """The bytes of one message about SIZE parameters."""
    options = AlgorithmOptions(name, keep=KEEP, compression=compression, number_format=number_format)
    build = build_client if name in server_algorithm_names() else build_algorithm
    return payload_bytes(build(options, torch.zeros(SIZE), LocalStep(0.1, 4)).layout())


BYTES: Mapping[str, str] = column("name", "bytes per edge, direction and round")
KEYS = column("`compression`", "bytes, besides its numbers")
NUMBERS = column("`number_format`", "bytes of its numbers")


def test_every_algorithm_has_its_row() -> None:
    assert sorted(BYTES) == sorted(algorithm_names() + server_algorithm_names())
    assert (set(KEYS), set(NUMBERS)) == tuple(set(names) for names in compression_names())


@pytest.mark.parametrize("name", algorithm_names() + server_algorithm_names())
def test_a_message_is_as_large_as_the_table_says(name: str) -> None:
    assert sent(name) == value(BYTES[name])


@pytest.mark.parametrize("compression", ["random-k", "low-rank", "top-k"])
@pytest.mark.parametrize("number_format", compression_names()[1])
def test_a_compressed_message_is_as_large_as_its_parts_say(compression: str, number_format: str) -> None:
    assert sent("c-ecl", compression, number_format) == value(KEYS[compression]) + value(NUMBERS[number_format])


def test_everything_is_sent_without_compression() -> None:
    assert sent("c-ecl", "none") == 4 * SIZE
