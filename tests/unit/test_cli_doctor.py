"""`concord doctor`: what it finds on a machine that is ready, and on ones that are not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from fastapi import FastAPI

from certified import authority, issue, lay, now
from cli import Outcome, Run, runner
from concord.apps.serve import Server, bind, in_thread
from concord.certificates import Authority, Wanted
from concord.cli.checks_network import without_password
from concord.transport.tls import SiteTls
from fake_site import fake_site

DIGITS = str(Path(__file__).parents[2] / "examples" / "digits.yaml")


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONCORD_REDIS_URL", raising=False)
    return runner(capsys)


def levels(outcome: Outcome) -> dict[str, str]:
    return {finding["subject"]: finding["level"] for finding in outcome.json["findings"]}


def finding(outcome: Outcome, subject: str) -> dict[str, str]:
    found = {one["subject"]: one for one in outcome.json["findings"]}
    return dict(found[subject])


def test_a_machine_that_is_ready_for_a_job(concord: Run, base_port: int) -> None:
    outcome = concord("doctor", DIGITS, "--json", "--base-port", str(base_port))
    found = levels(outcome)
    for subject in (
        "job",
        "python",
        "torch",
        "topology",
        "redis",
        "ports",
        "data",
        "disk",
        "clock",
        "secret",
    ):
        assert found[subject] == "ok", finding(outcome, subject)
    assert (outcome.code, outcome.json["ok"]) == (0, True)


def test_every_failure_has_a_remedy_and_the_exit_code_says_so(concord: Run, base_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base_port))
        taken.listen()
        arguments = ("--set", "sites=1", "--set", "split=iid", "--base-port", str(base_port))
        outcome = concord("doctor", DIGITS, *arguments, "--json")
        shown = concord("doctor", DIGITS, *arguments).out
    assert outcome.code == 3
    assert finding(outcome, "ports")["detail"] == f"in use: {base_port}"
    assert "--base-port" in finding(outcome, "ports")["remedy"]
    assert "FAIL" in shown


def test_a_wrong_job_is_a_finding_per_problem(concord: Run, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: a\ntask: digits\nsites: 2\nfoo: 1\nbar: 2\n")
    outcome = concord("doctor", str(path), "--json")
    assert outcome.code == 3
    assert [one["level"] for one in outcome.json["findings"] if one["subject"] == "job"] == ["fail", "fail"]


def test_a_job_without_its_data(concord: Run) -> None:
    outcome = concord("doctor", DIGITS, "--set", "split.classes=[1, 1]", "--json")
    assert outcome.code == 3
    assert "split.classes" in finding(outcome, "data")["detail"]


def test_a_redis_that_does_not_answer(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCORD_REDIS_URL", "redis://:hidden@127.0.0.1:9/0")
    found = finding(concord("doctor", "--json"), "redis")
    assert found["level"] == "fail"
    assert "hidden" not in found["detail"]
    assert "CONCORD_REDIS_URL" in found["remedy"]


def test_a_redis_that_answers(concord: Run, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setenv("CONCORD_REDIS_URL", redis_url)
    assert finding(concord("doctor", "--json"), "redis")["level"] == "ok"


def test_a_site_on_its_own_needs_a_secret(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCORD_SITE", "N1")
    assert finding(concord("doctor", "--json"), "secret")["level"] == "fail"
    monkeypatch.setenv("CONCORD_INSECURE", "true")
    assert finding(concord("doctor", "--json"), "secret")["level"] == "warn"
    monkeypatch.delenv("CONCORD_INSECURE")
    monkeypatch.setenv("CONCORD_SECRET", "sixteen bytes or more")
    assert finding(concord("doctor", "--json"), "secret")["level"] == "ok"


def test_certificates_are_looked_at(concord: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = Authority.new("digits", 30, now())
    monkeypatch.setenv("CONCORD_TLS_DIR", str(tmp_path))
    monkeypatch.setenv("CONCORD_SITE", "N1")
    found = finding(concord("doctor", "--json"), "certificates")
    assert (found["level"], "tls.crt is missing" in found["detail"]) == ("fail", True)
    lay(tmp_path, made.issue(Wanted("digits", "N1"), 30, now()))
    outcome = concord("doctor", "--json")
    assert finding(outcome, "certificates")["level"] == "ok"
    assert "spiffe://digits/site/N1" in finding(outcome, "certificates")["detail"]
    assert finding(outcome, "secret")["level"] == "ok"
    lay(tmp_path, made.issue(Wanted("digits", "N1"), 1, now()))
    assert finding(concord("doctor", "--json"), "certificates")["level"] == "warn"
    lay(tmp_path, made.issue(Wanted("digits", "N2"), 30, now()))
    monkeypatch.setenv("CONCORD_INSECURE", "true")
    outcome = concord("doctor", "--json")
    assert "it should name spiffe://<federation>/site/N1" in finding(outcome, "certificates")["detail"]
    assert finding(outcome, "secret")["level"] == "fail"


def test_neighbours_are_called_with_the_certificate(
    concord: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = authority()
    monkeypatch.setenv("CONCORD_TLS_DIR", str(lay(tmp_path / "N1", issue(made, "N1"))))
    tls = SiteTls(lay(tmp_path / "N2", issue(made, "N2")), "test", "N2")
    with in_thread(Server(FastAPI(), bind("127.0.0.1", 0), tls=tls.server)) as url:
        monkeypatch.setenv("CONCORD_PEERS", f"N2={url},N3={url}")
        outcome = concord("doctor", "--json")
    assert finding(outcome, "peer N2")["level"] == "ok"
    assert "site/N2, not spiffe://test/site/N3" in finding(outcome, "peer N3")["detail"]


def test_a_wrong_setting_is_a_finding(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCORD_PROT", "1")
    found = finding(concord("doctor", "--json"), "settings")
    assert "did you mean 'CONCORD_PORT'?" in found["detail"]


def test_neighbours_are_called(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_site({"/healthz": (200, {"live": True})}) as site:
        monkeypatch.setenv("CONCORD_PEERS", f"N2={site.url},N3=http://127.0.0.1:9")
        outcome = concord("doctor", "--json")
    assert finding(outcome, "peer N2")["level"] == "ok"
    assert "clocks differ by" in finding(outcome, "peer N2")["detail"]
    assert finding(outcome, "peer N3")["level"] == "warn"


def test_a_folder_that_cannot_be_written(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCORD_STATE_DIR", "/proc/nowhere")
    found = finding(concord("doctor", "--json"), "disk")
    assert found["level"] == "fail"
    assert "CONCORD_STATE_DIR" in found["remedy"]


def test_a_password_is_never_shown() -> None:
    assert without_password("redis://u:secret@host:6379/0") == "redis://u:...@host:6379/0"
    assert without_password("unix:///run/redis.sock") == "unix:///run/redis.sock"
