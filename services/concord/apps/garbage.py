"""What a serving process does about memory: things that stay are not collected, holes in the heap are given back."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from concord.crew import Crew

_EVERY = 30.0
"""Seconds from one look for holes to the next."""
_C = ctypes.CDLL(None)


def settle() -> None:
    """Whatever is there now stays: call once a process is set up, before it serves.

    A full collection looks at each of the half million objects that torch and its like bring along, which takes a tenth
    of a second during which nobody is answered.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Let the system have the pages of the heap that nothing is in, where the C library can (glibc does).

    Updates come and go by the thousand between small things that stay. The holes they leave fit most of what comes
    next but not all, and the heap crept by 2 to 3 MB an hour. This takes 0.2 ms with a heap of 100 MB.
    """
    if hasattr(_C, "malloc_trim"):
        _C.malloc_trim(0)


@asynccontextmanager
async def giving_back(every: float = _EVERY) -> AsyncIterator[None]:
    """Give back every so many seconds while the block runs."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(every)
            give_back()

    crew = Crew()
    crew.add(repeat())
    try:
        yield
    finally:
        await crew.dismiss()
