"""The trainer's part of `benchmarks.swaps`: publishes a model for each version that it reads, one to the line."""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks.swaps_models import KINDS
from concord.serving.packing import pack_model
from concord.serving.snapshots import RedisShelf
from concord.site.ports import Snapshot


async def publish(redis_url: str, federation: str, kind: str) -> None:
    """Until stdin ends."""
    shelf = RedisShelf(redis_url, federation, "N1")
    blobs = [pack_model(KINDS[kind].build()) for _ in range(4)]
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            version = int(line)
            await shelf.publish(Snapshot(version, version, version, "", {}, time.time(), blobs[version % len(blobs)]))
    finally:
        await shelf.close()


if __name__ == "__main__":
    asyncio.run(publish(*sys.argv[1:]))
