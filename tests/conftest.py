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
from xdist.scheduler import LoadFileScheduling

from concord.apps.local import HOST
from concord.mailbox.server import EmbeddedServer

# Tests in a cluster are `make e2e`: elsewhere they are not there, rather than skipped.
collect_ignore = [] if os.environ.get("CONCORD_E2E") else ["e2e"]


FEDERATIONS = {
    f"tests/{name}.py"
    for name in (
        "browser/test_console_page",
        "chaos/test_chaos",
        "integration/test_console",
        "integration/test_local_fleet",
        "integration/test_members",
        "integration/test_prometheus",
        "integration/test_split_site",
        "integration/test_tracking",
        "pages/test_walkthroughs",
        "soak/test_soak",
    )
}
"""Files whose tests fill the machine by themselves. Two at once would take several times as long, waiting."""


class _FederationsInTurn(LoadFileScheduling):
    """Gives each file of tests to one process, and all that start federations to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "federations" if file in FEDERATIONS else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _FederationsInTurn:
    """What `make test` divides the tests with."""
    return _FederationsInTurn(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take longest begin first."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in FEDERATIONS)


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
