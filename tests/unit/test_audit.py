"""What `make audit` makes of the answers of pip-audit: silence is never taken for good news."""

from __future__ import annotations

import json

import pytest

from tools.audit import CANNOT_ASK, FOUND, tell

GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "it is not there"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([GOOD], 0, "1 packages looked at, 0 known"),
        ([GOOD, BAD], FOUND, "bad 2.0: PYSEC-1, mended in 2.1"),
        ([BAD, UNKNOWN], FOUND, "1 not looked at"),
        ([GOOD, UNKNOWN], CANNOT_ASK, "it is not there"),
    ],
)
def test_what_was_found_is_told(
    packages: list[object], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell(json.dumps({"dependencies": packages}), "") == status
    assert said in "".join(capsys.readouterr())


@pytest.mark.parametrize("output", ["", "{}", "no JSON"])
def test_no_answer_is_no_good_news(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(output, "Traceback\nConnectionError: nobody is there\n") == CANNOT_ASK
    assert "nobody is there" in capsys.readouterr().err
