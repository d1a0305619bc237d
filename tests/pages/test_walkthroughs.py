"""Every command of the pages for beginners is run, in order, as a reader would; what they say comes out, comes out."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from walkthrough import blocks, follow

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_SITES = 8


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as the page that the outputs were copied from."""
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def checkout(tmp_path: Path, screen: None) -> Path:
    """A checkout in which `make install` has been run: with the files that it looks at, and this environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (0, 0))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv" / "demo.stamp").touch()
    return tmp_path


@pytest.fixture
def port() -> int:
    """The first of as many free ports as a page has sites."""
    for first in range(20_000 + os.getpid() % 10_000, 40_000, _SITES):
        if all(_is_free(first + offset) for offset in range(_SITES)):
            return first
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.timeout(300)
def test_the_quick_start_can_be_followed(checkout: Path, port: int) -> None:
    follow(DOCS / "quick-start.md", checkout, port, timeout=280)


@pytest.mark.timeout(300)
def test_the_tutorial_can_be_followed(tmp_path: Path, screen: None, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    follow(DOCS / "tutorial.md", tmp_path, port, timeout=280)


@pytest.mark.parametrize("page", ["quick-start.md", "tutorial.md"])
def test_no_command_of_a_page_is_left_out(page: str) -> None:
    text = (DOCS / page).read_text()
    assert text.count("```") == 2 * len(blocks(DOCS / page)), "a block is neither bash, text nor a file with a title"
