"""The engine, the image under test, and what a run reports: for `make test-containers`, not for `make test`."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from container_engine import Engine, EngineError

ROOT = Path(__file__).parents[2]
PROGRAM = os.environ.get("DOCKER", "docker")
IMAGE = os.environ.get("IMAGE", "concord:dev")
MACHINE_NOT_AS_NEEDED = 3
_BUILD_TIMEOUT = 1800.0
_report = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def image() -> str:
    """The image, built from what is here now; ends the run with exit code 3 where that cannot be."""
    engine = Engine(PROGRAM, "image")
    try:
        engine.call("version")
    except EngineError as error:
        _give_up(f"a container engine is needed and `{PROGRAM} version` failed: {error}")
    for base in {name for name in map(os.environ.get, ("BASE_IMAGE", "BUILD_IMAGE")) if name} or {_default_base()}:
        _need_image(engine, base)
    try:
        subprocess.run(["make", "image"], cwd=ROOT, check=True, timeout=_BUILD_TIMEOUT)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.exit(f"the image cannot be built: {error}", returncode=1)
    return IMAGE


@pytest.fixture
def engine(image: str) -> Iterator[Engine]:
    """The engine; what a test makes through it is gone after the test."""
    made = Engine(PROGRAM, secrets.token_hex(3))
    try:
        yield made
    finally:
        made.remove_everything()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are shown when all is done."""
    return request.config.stash.setdefault(_report, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what the tests measured."""
    if lines := config.stash.get(_report, []):
        terminalreporter.section("measured")
        terminalreporter.write("\n".join([*lines, ""]))


def _default_base() -> str:
    found = re.search(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "services" / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    return found[1]


def _need_image(engine: Engine, name: str) -> None:
    try:
        engine.call("image", "inspect", name)
    except EngineError:
        try:
            engine.call("pull", name, timeout=_BUILD_TIMEOUT)
        except EngineError as error:
            _give_up(f"the image {name} is neither here nor to be had; name another with BASE_IMAGE: {error}")


def _give_up(why: str) -> NoReturn:
    pytest.exit(why, returncode=MACHINE_NOT_AS_NEEDED)
