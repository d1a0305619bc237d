"""No secret of a site shows in what its processes say, answer or are called, whatever goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from certified import authority, issue, lay
from concord.apps.local import HOST
from concord.errors import JobError, MailboxError
from concord.mailbox.redis import RedisMailbox
from concord.settings import Secret, Settings, load_settings
from concord.transport.identity import Signer, Verifier

Process = subprocess.Popen[str]
Command = Callable[..., Process]

HMAC = "a-hmac-secret-that-nobody-may-read"
PASSWORD = "a-redis-password#that/nobody may read"
WRONG_PASSWORD = "another-password#that/nobody may read"
JOB = """\
name: test
task: digits
sites: 2
split: {classes: [5, 5]}
topology: ring
training: {rounds: 2000, pace: 0.05, local_steps: 2}
"""
VERBOSE = """\
import logging

logging.basicConfig(level=logging.DEBUG)
logging.debug("all is said")
"""
"""Run by every process before anything else: all logging at its most talkative."""
PATIENCE = 40.0


@pytest.fixture
def talkative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job, in which processes say all that they can."""
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "sitecustomize.py").write_text(VERBOSE)
    monkeypatch.setenv("CONCORD_LOG_LEVEL", "debug")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "startup"), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def wait_for(holds: Callable[[], bool], process: Process, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def ask(port: int, path: str) -> str:
    try:
        return httpx.get(f"http://{HOST}:{port}{path}", timeout=5.0).text
    except httpx.HTTPError:
        return ""


def told_by(process: Process, port: int, until: str) -> str:
    """Everything a process says and answers, from its start until its status has `until`, and to its end."""
    wait_for(lambda: until in ask(port, "/v1/status"), process, f"no {until} in the status")
    told = [ask(port, path) for path in ("/v1/status", "/readyz", "/healthz", "/openapi.json")]
    told.append(Path(f"/proc/{process.pid}/cmdline").read_bytes().decode())
    # A neighbour's mistakes, so that refusals are said too.
    for method, slot in (("PUT", "inbox"), ("GET", "outbox")):
        headers = {"concord-site": "N2", "concord-signature": "0", "concord-nonce": "1", "concord-timestamp": "1"}
        told.append(httpx.request(method, f"http://{HOST}:{port}/v1/{slot}/N2", headers=headers).text)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=PATIENCE)
    assert "DEBUG:root:all is said" in errors
    return "\n".join([*told, out, errors])


@pytest.mark.parametrize("way", ["environment", "file", "certificates"])
@pytest.mark.parametrize("name", ["exchange", "site"])
def test_what_a_process_tells_has_no_secret_in_it(
    way: str, name: str, talkative: Path, command: Command, base_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (talkative / "redis").mkdir()
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    command("redis", "--dir", str(talkative / "redis"), "--port", str(base_port))
    monkeypatch.delenv("REDIS_PASSWORD")
    monkeypatch.setenv("CONCORD_REDIS_URL", f"redis://:{quote(PASSWORD, safe='')}@{HOST}:{base_port}/0")
    secrets = [PASSWORD, quote(PASSWORD, safe="")]
    if way == "environment":
        monkeypatch.setenv("CONCORD_SECRET", HMAC)
    elif way == "file":
        (talkative / "secret").write_text(HMAC)
        monkeypatch.setenv("CONCORD_SECRET_FILE", str(talkative / "secret"))
    else:
        files = lay(talkative / "N1", issue(authority(), "N1"))
        monkeypatch.setenv("CONCORD_TLS_DIR", str(files))
        monkeypatch.setenv("CONCORD_EXCHANGE_PORT", str(base_port + 2))
        secrets += [line for line in (files / "tls.key").read_text().splitlines() if "PRIVATE" not in line]
    monkeypatch.setenv("CONCORD_LOG_FORMAT", "json" if way == "file" else "text")
    scheme = "https" if way == "certificates" else "http"
    monkeypatch.setenv("CONCORD_PEERS", f"N2={scheme}://{HOST}:{base_port + 9}")  # where nobody is
    process = command(name, "--job", "job.yaml", "--site", "N1", "--port", str(base_port + 1))
    told = told_by(process, base_port + 1, '"mailbox": "ok"')
    for secret in (HMAC, *secrets):
        assert secret not in told


def test_a_password_that_redis_refuses_is_not_told(
    talkative: Path, command: Command, base_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (talkative / "redis").mkdir()
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    command("redis", "--dir", str(talkative / "redis"), "--port", str(base_port))
    monkeypatch.delenv("REDIS_PASSWORD")
    monkeypatch.setenv("CONCORD_SECRET", HMAC)
    wrong = quote(WRONG_PASSWORD, safe="")
    monkeypatch.setenv("CONCORD_REDIS_URL", f"redis://:{wrong}@{HOST}:{base_port}/0")
    process = command("exchange", "--job", "job.yaml", "--site", "N1", "--port", str(base_port + 1))
    told = told_by(process, base_port + 1, "password")  # "invalid username-password pair"
    for secret in (HMAC, PASSWORD, WRONG_PASSWORD, wrong):
        assert secret not in told


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{WRONG_PASSWORD}@{HOST}:6379/0",  # not written as %XX, so that it is taken for a port
        f"http://:{WRONG_PASSWORD}@{HOST}:6379/0",
        f"redis://:{quote(WRONG_PASSWORD, safe='')}@{HOST}:port/0",
    ],
)
def test_a_redis_url_that_is_wrong_is_not_repeated(
    url: str, talkative: Path, command: Command, base_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCORD_SECRET", HMAC)
    monkeypatch.setenv("CONCORD_REDIS_URL", url)
    process = command("exchange", "--job", "job.yaml", "--site", "N1", "--port", str(base_port))
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    for part in ("another-password", quote(WRONG_PASSWORD, safe=""), HMAC):
        assert part not in out + errors


def test_settings_and_secrets_do_not_show_in_a_repr() -> None:
    environment = {"CONCORD_SECRET": HMAC, "CONCORD_REDIS_URL": f"redis://:{quote(PASSWORD, safe='')}@{HOST}/0"}
    settings = load_settings({}, environment)
    assert settings.secret is not None
    objects = (settings, settings.secret, [settings.secret], Signer("N1", settings.secret))
    for text in [form(thing) for form in (repr, str) for thing in (*objects, Verifier("N1", settings.secret))]:
        assert HMAC not in text
        assert quote(PASSWORD, safe="") not in text
    assert Settings(site="N1") != settings


@pytest.mark.parametrize("short", ["tiny-secret", "  fifteen bytes  "])
def test_a_secret_that_is_too_short_is_not_repeated(short: str) -> None:
    with pytest.raises(JobError) as error:
        Secret.from_text(short)
    assert short.strip() not in "".join(traceback.format_exception(error.value))


@pytest.mark.anyio
async def test_a_traceback_of_an_unreachable_redis_has_no_password_in_it(tmp_path: Path) -> None:
    mailbox = RedisMailbox(f"unix://:{quote(PASSWORD, safe='')}@{tmp_path}/nothing", "test", "N1")
    with pytest.raises(MailboxError) as error:
        await mailbox.read_note("x")
    told = "".join(traceback.format_exception(error.value))
    assert PASSWORD not in told
    assert quote(PASSWORD, safe="") not in told
    await mailbox.close()
