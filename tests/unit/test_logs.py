"""What a line of a log looks like, which lines there are, and that nobody can forge one."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator

import pytest

from concord import logs

OURS = logging.getLogger("concord.test")
THEIRS = logging.getLogger("somebody.else")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, hooks = list(root.handlers), (sys.excepthook, threading.excepthook)
    levels = {name: logging.getLogger(name).level for name in ("concord", "uvicorn")}
    yield
    root.handlers[:] = handlers
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_json_line_says_when_who_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", site="N1", process="trainer")
    OURS.info("finished after %d rounds", 9, extra={"update": "f/N1/N2/1.2.3"})
    (line,) = lines(capsys)
    fields = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields == {
        "level": "INFO",
        "logger": "concord.test",
        "message": "finished after 9 rounds",
        "site": "N1",
        "process": "trainer",
        "update": "f/N1/N2/1.2.3",
    }


def test_an_exception_is_one_field_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        OURS.exception("it broke")
    (line,) = lines(capsys)
    exception = json.loads(line)["exception"]
    assert exception.startswith("Traceback (most recent call last):\n")
    assert exception.endswith("ValueError: two\nlines")


def test_an_error_that_nobody_expected_is_a_json_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", site="N1")
    thread = threading.Thread(target=lambda: 1 / 0, name="worker")
    thread.start()
    thread.join()
    sys.excepthook(KeyError, KeyError("no such"), None)
    told = [json.loads(line) for line in lines(capsys)]
    assert [one["level"] for one in told] == ["CRITICAL", "CRITICAL"]
    assert "ZeroDivisionError" in told[0]["exception"]
    assert "worker" in told[0]["message"]
    assert "no such" in told[1]["exception"]


def test_a_field_cannot_pass_for_one_of_the_line_itself(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", site="N1")
    OURS.info("true", extra={"level": "forged", "site": "forged", "odd": {1, 2}})
    (line,) = lines(capsys)
    fields = json.loads(line)
    assert (fields["level"], fields["site"]) == ("INFO", "N1")
    assert fields["odd"] == "{1, 2}"


def test_text_from_others_cannot_pass_for_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info")
    OURS.warning("refused: %s", "no\n2026-01-01T00:00:00.000Z INFO forged", extra={"reason": "a\rb"})
    (line,) = capsys.readouterr().err.split("\n")[:-1]
    assert "\r" not in line
    assert line.endswith("WARNING concord.test: refused: no\\n2026-01-01T00:00:00.000Z INFO forged reason=a\\rb")


@pytest.mark.parametrize(
    ("level", "said"), [("debug", ["d", "i", "w"]), ("info", ["i", "w"]), ("warning", ["w"]), ("error", [])]
)
def test_the_level_holds_for_our_lines_and_others_say_only_what_is_wrong(
    level: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("text", level)
    for logger in (OURS, logging.getLogger("uvicorn.error")):
        logger.debug("d")
        logger.info("i")
        logger.warning("w")
        assert [line.rpartition(" ")[2] for line in lines(capsys)] == said
    THEIRS.info("not said")
    THEIRS.warning("wrong")
    assert [line.partition(" WARNING ")[2] for line in lines(capsys)] == ["somebody.else: wrong"]


def test_configured_again_it_does_not_say_things_twice(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    assert logs.is_json()
    logs.configure("text", "info")
    assert not logs.is_json()
    OURS.info("once")
    assert len(lines(capsys)) == 1
