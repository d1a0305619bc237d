"""Keeps the event loop free of work that grows with an update's size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_INLINE_BYTES = 1 << 18
"""Below this many bytes hashing and checking take less time than handing them to a thread."""


async def offload(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` on `size` bytes: here if they are few, otherwise in a thread."""
    if size < _INLINE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
