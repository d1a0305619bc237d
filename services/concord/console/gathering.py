"""Asks all sites how they are, at one pace: often while somebody looks, seldom otherwise. Must not know HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from concord.console.fleet_view import Answer
from concord.console.places import Place
from concord.console.reading import read_report

AT_ONCE = 16
"""Requests under way at the same time, so that a hundred sites do not come as one burst."""


class Asks(Protocol):
    """Whoever can fetch a site's status document."""

    async def status(self, base: str) -> object:
        """The JSON of the status; TransportError, one sentence, if there is none."""
        ...


def pace(sites: int, watched: bool) -> float:
    """Seconds between two looks at a fleet of so many sites."""
    if not watched:
        return 5.0
    return 0.5 if sites <= 32 else 1.0


async def ask_all(
    asks: Asks, places: Iterable[Place], failure: type[Exception], at_once: int = AT_ONCE
) -> dict[str, Answer]:
    """Each site's report, or why there is none."""
    gate = asyncio.Semaphore(at_once)

    async def ask(place: Place) -> tuple[str, Answer]:
        async with gate:
            try:
                return place.name, read_report(await asks.status(place.status))
            except (failure, ValueError) as error:
                return place.name, str(error)

    return dict(await asyncio.gather(*map(ask, places)))


class Pacer:
    """Waits from look to look; `hurry` ends the wait at once, for a browser that has just come."""

    def __init__(self, sites: int, watched: Callable[[], bool]) -> None:
        self._sites = sites
        self._watched = watched
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Look now."""
        self._hurry.set()

    async def wait(self, spent: float) -> None:
        """Until the next look is due, `spent` seconds after the last one began."""
        left = max(0.05, pace(self._sites, self._watched()) - spent)
        try:
            async with asyncio.timeout(left):
                await self._hurry.wait()
        except TimeoutError:
            pass
        self._hurry.clear()
