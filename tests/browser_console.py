"""A console before a made-up fleet, and what goes wrong on a page of it: errors, and requests to anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, Page

from concord.apps.console import Console, ConsoleSettings
from concord.apps.serve import in_thread
from concord.console.recording import Recording
from fake_fleet import FakeFleet

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""Among other things, the browser must not call its maker."""
REFERENCE = Recording(
    "gossip averaging",
    "gossip",
    sites={f"N{i}": [(done / 4, done, 0.1 + done / 600) for done in range(0, 301, 10)] for i in range(1, 9)},
    pooled=[(done, 0.99 - 0.8 / (1 + done)) for done in range(0, 301, 10)],
)


@dataclass(slots=True)
class Visit:
    """A page with what went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


Open = Callable[..., Visit]


@contextmanager
def console_of(fleet: FakeFleet, reference: Recording | None = REFERENCE, port: int = 0) -> Iterator[str]:
    """A console that looks at a fake fleet; gives its URL. Port 0 takes a free one."""
    with in_thread(Console(ConsoleSettings(fleet.places, port=port, reference=reference)).server()) as url:
        yield url


def open_page(browser: Browser, url: str, **options: object) -> Visit:
    """A page in a profile of its own."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    visit = Visit(context.new_page())
    page = visit.page
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda said: said.type in ("error", "warning") and visit.errors.append(said.text))
    page.on("request", lambda asked: asked.url.startswith((url, "blob:")) or visit.elsewhere.append(asked.url))
    page.goto(url)
    return visit
