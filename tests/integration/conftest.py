"""Fixtures for tests that start real processes: free ports, a folder for temporary files, and commands that end."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from concord.apps.local import HOST


@pytest.fixture
def base_port() -> int:
    """The first of a run of ports that are free now, looked for from a place of chance: other tests may run beside."""
    runs = range(21000, 29000, 16)
    for first in random.sample(runs, len(runs)):
        try:
            for port in range(first, first + 16):
                with socket.socket() as probe:
                    probe.bind((HOST, port))
        except OSError:
            continue
        return first
    raise AssertionError("no run of free ports")


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where processes put their temporary files; short, because socket paths must be."""
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)  # what the library remembers of the variable
    return folder


@pytest.fixture
def command(tmp_path: Path, temporary: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "concord", *arguments],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
