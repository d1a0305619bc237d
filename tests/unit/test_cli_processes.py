"""The process commands: a wrong job, setting or name is told before anything is opened."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from cli import Run, runner
from concord.cli.processes import PROCESSES

DIGITS = str(Path(__file__).parents[2] / "examples" / "digits.yaml")


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for variable in ("CONCORD_JOB", "CONCORD_SITE"):
        monkeypatch.delenv(variable, raising=False)
    return runner(capsys)


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_can_be_run_with_a_job_and_settings(name: str) -> None:
    module, _ = PROCESSES[name]
    assert list(signature(import_module(module).run).parameters) == ["job", "settings"]


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_must_know_its_site(concord: Run, name: str) -> None:
    outcome = concord(name, "--job", DIGITS)
    assert outcome.code == 2
    assert "set --site or CONCORD_SITE to one of N1, N2" in outcome.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--site", "n3"], "unknown site 'n3'; did you mean 'N3'?"),
        (["--site", "N1", "--peers", "n2=http://x"], "unknown site 'n2'; did you mean 'N2'?"),
        (["--site", "N1", "--peers", "N2"], "peers (CONCORD_PEERS): should be NAME=http://host:port"),
        (["--site", "N1", "--port", "x"], "port (CONCORD_PORT): should be a port"),
        (["--site", "N1", "--redis-url", "x"], "redis_url (CONCORD_REDIS_URL): should begin with redis://"),
        (["--site", "N1", "--secret-file", "nowhere"], "the secret file nowhere cannot be read"),
        (["--site", "N1", "--set", "training.rouds=1"], "did you mean 'rounds'?"),
    ],
)
def test_a_wrong_flag_is_told(concord: Run, flags: list[str], message: str) -> None:
    outcome = concord("trainer", "--job", DIGITS, *flags)
    assert outcome.code == 2
    assert message in outcome.err


def test_the_secret_itself_is_no_flag(concord: Run) -> None:
    outcome = concord("exchange", "--job", DIGITS, "--secret", "a secret of enough bytes")
    assert outcome.code == 2
    assert "No such option" in outcome.err


def test_the_job_may_come_from_the_environment(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCORD_JOB", DIGITS)
    assert "CONCORD_SITE" in concord("inference").err
