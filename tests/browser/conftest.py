"""A real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, sync_playwright

from browser_console import FLAGS, Open, Visit, open_page
from tools import get_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a module, not for longer: while it is there, no other test of this process can have an event loop."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(get_chromium.find()), args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens pages, each in a profile of its own."""
    with ExitStack() as stack:

        def visited(url: str, **options: object) -> Visit:
            made = open_page(browser, url, **options)
            stack.callback(made.page.context.close)
            return made

        yield visited
