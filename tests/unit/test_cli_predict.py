"""`concord predict`: where inputs come from, how the answer is shown, and what goes wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import Run, runner
from concord.cli.main import create_app
from concord.cli.runfile import RunFile, write_run_file
from fake_site import FakeSite, fake_site

ANSWER = {
    "predictions": [{"label": "7", "class": 7, "probability": 0.93, "probabilities": [0.07, 0.93]}],
    "model": {"name": "digits", "version": 4, "round": 120},
}
DIGITS = str(Path(__file__).parents[2] / "examples" / "digits.yaml")


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


@pytest.fixture
def site() -> Iterator[FakeSite]:
    with fake_site({"/v1/predict": (200, ANSWER)}) as door:
        yield door


@pytest.mark.parametrize("given", ["[[1.0, 2.0]]", '{"inputs": [[1.0, 2.0]]}', "rows.json"])
def test_inputs_are_json_in_the_argument_or_in_a_file(concord: Run, site: FakeSite, given: str) -> None:
    Path("rows.json").write_text("[[1.0, 2.0]]")
    outcome = concord("predict", given, "--url", site.url)
    assert outcome.code == 0
    assert site.asked == [("/v1/predict", {"inputs": [[1.0, 2.0]]})]
    for shown in ("digits, version 4, round 120", "7", "0.93"):
        assert shown in outcome.out


def test_inputs_may_come_by_stdin(site: FakeSite) -> None:
    outcome = CliRunner().invoke(create_app(), ["predict", "-", "--url", site.url, "--json"], input="[1, 2]")
    assert json.loads(outcome.stdout) == ANSWER
    assert site.asked == [("/v1/predict", {"inputs": [1, 2]})]


def test_a_sample_of_the_test_set_comes_with_the_truth(concord: Run, site: FakeSite) -> None:
    report = concord("predict", "--sample", "0", "--job", DIGITS, "--url", site.url, "--json").json
    assert report["true"] in "0123456789"
    ((_, body),) = site.asked
    assert isinstance(body, dict)
    assert len(body["inputs"][0]) == 64


def test_a_site_of_the_running_fleet_is_asked_by_name(concord: Run, site: FakeSite) -> None:
    write_run_file(Path(".concord/run.json"), RunFile("digits", DIGITS, {"N1": site.url}, os.getpid()))
    assert concord("predict", "[[1]]", "--site", "N1").code == 0
    assert concord("predict", "--sample", "1").code == 0
    outcome = concord("predict", "[[1]]", "--site", "n1")
    assert (outcome.code, "error: unknown site 'n1'; did you mean 'N1'? [" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            400,
            {"error": "x", "field": "inputs", "expected": "rows of 64 numbers"},
            "inputs: rows of 64 numbers",
        ),
        (503, {"error": "x", "field": "model", "expected": "a model, soon"}, "model: a model, soon"),
        (500, {"error": "broken"}, "answered 500: broken"),
        (500, [1], "answered 500"),
        (200, b"<html>", "not with JSON"),
    ],
)
def test_what_the_site_refuses_is_told(concord: Run, status: int, body: object, message: str) -> None:
    with fake_site({"/v1/predict": (status, body)}) as door:
        outcome = concord("predict", "[[1]]", "--url", door.url)
    assert outcome.code == 1
    assert message in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give either an INPUT or --sample K"),
        (["[1]", "--sample", "1"], 2, "give either an INPUT or --sample K"),
        (["[1"], 1, "should be JSON"),
        (["nowhere.json"], 1, "nowhere.json is neither JSON nor a file"),
        (["--sample", "9999", "--job", DIGITS], 2, "the test set has 0 to"),
        (["[1]"], 1, "cannot be reached"),
    ],
)
def test_a_wrong_request_is_told(concord: Run, arguments: list[str], code: int, message: str) -> None:
    outcome = concord("predict", *arguments, "--url", "http://127.0.0.1:9")
    assert outcome.code == code
    assert message in outcome.err
