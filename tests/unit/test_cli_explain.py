"""Error codes: each error has one, each is explained, and the command line says where."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cli import Run, runner
from concord.cli.explanations import EXPLANATIONS, REFUSALS
from concord.errors import ConcordError, RefusalReason
from concord.job.problems import JobFileError


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def kinds(kind: type[ConcordError] = ConcordError) -> Iterator[type[ConcordError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


def test_every_code_belongs_to_one_kind_and_is_explained() -> None:
    assert JobFileError in kinds()
    own = [kind.code for kind in kinds() if "code" in vars(kind)]
    assert sorted(own) == sorted(set(own))
    assert set(own) == set(EXPLANATIONS)


def test_every_reason_of_a_refusal_is_explained() -> None:
    assert set(REFUSALS) == set(RefusalReason)


def test_an_error_says_its_code_and_where_it_is_explained(concord: Run) -> None:
    outcome = concord("validate", "nowhere.yaml")
    assert outcome.err.endswith(" [concord explain CE-100; docs/errors.md#ce-100]\n")
    assert json.loads(concord("validate", "nowhere.yaml", "--json").err)["code"] == "CE-100"


def test_a_code_is_explained(concord: Run) -> None:
    shown = concord("explain", "ce-104")
    assert shown.code == 0
    assert shown.out.startswith("CE-104: the model or the data cannot be made")
    assert concord("explain", "CE-200", "--json").json["title"] == "the machine is not as needed"


def test_all_codes_are_listed(concord: Run) -> None:
    shown = concord("explain").out
    assert all(code in shown for code in EXPLANATIONS)
    assert set(concord("explain", "--json").json) == set(EXPLANATIONS)


def test_an_unknown_code_is_refused(concord: Run) -> None:
    outcome = concord("explain", "CE-999")
    assert outcome.code == 2
    assert "unknown code 'CE-999'" in outcome.err
