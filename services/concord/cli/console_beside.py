"""A console in a process of its own beside a fleet that this process runs, and the browser in front of it."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Self

from concord.apps.local import HOST
from concord.cli.console import PORT

_PATIENCE = 5.0
"""Seconds the console has to end before it is killed."""


class ConsoleBeside:
    """`concord console --open` for the fleet of the run file, from `with` to its end, at `url`."""

    def __init__(self, title: str) -> None:
        port = _free_port()
        self.url = f"http://{HOST}:{port}/"
        self._command = [sys.executable, "-m", "concord", "console", "--open", f"--port={port}", f"--title={title}"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # In a session of its own: Ctrl-C in the terminal is for the fleet, which then ends the console.
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    """The usual one, or else another that is free now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, PORT))
        except OSError:
            probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
