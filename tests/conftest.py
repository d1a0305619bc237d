"""Fixtures that more than one kind of test needs."""

from __future__ import annotations

import os
import random
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from concord.apps.local import HOST
from concord.mailbox.server import EmbeddedServer

# Tests in a cluster are `make e2e`: elsewhere they are not there, rather than skipped.
collect_ignore = [] if os.environ.get("CONCORD_E2E") else ["e2e"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The vectors of the tests are so short that torch's threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, which is what the services run on."""
    return "asyncio"


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


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real server: that of CONCORD_REDIS_URL, or else an embedded one for this session."""
    url = os.environ.get("CONCORD_REDIS_URL")
    if url:
        yield url
        return
    # Not pytest's own directory: its path may be too long for a socket.
    with (
        tempfile.TemporaryDirectory(prefix="concord-") as directory,
        EmbeddedServer(Path(directory)) as server,
    ):
        yield server.url


@pytest.fixture
def federation() -> str:
    """A name no other test uses, so that tests may share one server."""
    return f"test-{uuid.uuid4().hex[:12]}"
