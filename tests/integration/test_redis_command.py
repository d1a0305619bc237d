"""`concord redis` becomes a server that only the password opens, and that keeps what it was given."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError
from redis.retry import Retry

from concord.apps.local import HOST

Process = subprocess.Popen[str]
Command = Callable[..., Process]

PASSWORD = "p\"w\\ #'ä$x"
"""Whatever an administrator may choose."""
PATIENCE = 20.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "the data"
    folder.mkdir()
    return folder


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    return PASSWORD


def client(process: Process, port: int, password: str | None = None) -> Redis:
    """A client of a server that answers, be it with a refusal."""
    made = Redis(HOST, port, password=password, retry=Retry(NoBackoff(), 0))
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            made.ping()
        except AuthenticationError:
            return made
        except RedisError:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return made


def outcome(process: Process) -> tuple[int, str]:
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors


def test_only_the_password_opens_it_and_nobody_can_read_it_in_the_list_of_processes(
    command: Command, base_port: int, data: Path, password: str
) -> None:
    process = command("redis", "--dir", str(data), "--port", str(base_port))
    assert client(process, base_port, password).set("key", "value")
    for wrong in (None, "another"):
        with pytest.raises(AuthenticationError):
            client(process, base_port, wrong).get("key")
    seen = psutil.Process(process.pid)
    assert "valkey-server" in " ".join(seen.cmdline())
    assert not [word for word in seen.cmdline() if password in word]
    assert "REDIS_PASSWORD" not in seen.environ()


def test_a_restart_keeps_everything_and_the_end_is_in_good_order(
    command: Command, base_port: int, data: Path, password: str
) -> None:
    arguments = ("redis", "--dir", str(data), "--port", str(base_port))
    first = command(*arguments)
    server = client(first, base_port, password)  # by a name: a client that is collected closes its pipeline
    with server.pipeline() as pipe:
        for index in range(200):
            pipe.set(f"key{index}", os.urandom(1000).hex())
        pipe.execute()
    kept = server.get("key199")
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0
    again = client(command(*arguments), base_port, password)
    assert again.dbsize() == 200
    assert again.get("key199") == kept


def test_what_a_killed_server_wrote_to_disk_comes_back(command: Command, base_port: int, data: Path) -> None:
    arguments = ("redis", "--dir", str(data), "--port", str(base_port))
    first = command(*arguments)
    client(first, base_port).set("key", "value")
    first.kill()
    first.wait()
    assert client(command(*arguments), base_port).get("key") == b"value"


def test_without_a_log_of_writes_nothing_is_written(command: Command, base_port: int, data: Path) -> None:
    process = command("redis", "--dir", str(data), "--port", str(base_port), "--no-append-only")
    client(process, base_port).set("key", "value")
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert list(data.iterdir()) == []


def test_a_full_server_refuses_and_forgets_nothing(command: Command, base_port: int, data: Path) -> None:
    process = command("redis", "--dir", str(data), "--port", str(base_port), "--max-memory", "4000000")
    server = client(process, base_port)
    server.set("kept", "value")

    def fill() -> None:
        for index in range(100):
            server.set(f"key{index}", b"x" * 100_000)

    with pytest.raises(OutOfMemoryError):
        fill()
    assert server.get("kept") == b"value"


@pytest.mark.parametrize("address", ["0.0.0.0", "*", "::", "127.0.0.1,10.1.2.3", "redis.example"])
def test_it_is_not_open_to_strangers_by_an_oversight(command: Command, data: Path, address: str) -> None:
    code, said = outcome(command("redis", "--dir", str(data), "--bind", address))
    assert code == 2
    assert "REDIS_PASSWORD" in said
    assert "--insecure" in said


@pytest.mark.parametrize("how", ["password", "insecure"])
def test_every_address_is_listened_on_if_so_asked(
    command: Command, base_port: int, data: Path, how: str, request: pytest.FixtureRequest
) -> None:
    password = request.getfixturevalue("password") if how == "password" else None
    flags = [] if password else ["--insecure"]
    process = command("redis", "--dir", str(data), "--port", str(base_port), "--bind", "*", *flags)
    assert client(process, base_port, password).set("key", "value")
    addresses = {one.laddr.ip for one in psutil.Process(process.pid).net_connections() if one.status == "LISTEN"}
    assert "0.0.0.0" in addresses


def test_a_folder_that_is_not_there_is_told(command: Command, data: Path) -> None:
    code, said = outcome(command("redis", "--dir", str(data / "nowhere")))
    assert (code, "is not a folder" in said) == (3, True)


def test_a_folder_that_cannot_be_written_is_told(command: Command) -> None:
    code, said = outcome(command("redis", "--dir", "/proc"))  # where not even root can make a file
    assert (code, "--dir /proc cannot be written" in said) == (3, True)


def test_an_impossible_password_is_told(command: Command, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "x" * 513)
    code, said = outcome(command("redis", "--dir", str(data)))
    assert code == 2
    assert "REDIS_PASSWORD has more than 512 bytes" in said
    assert "xxx" not in said


def test_no_address_is_told(command: Command, data: Path) -> None:
    code, said = outcome(command("redis", "--dir", str(data), "--bind", ","))
    assert (code, "names no address" in said) == (2, True)
