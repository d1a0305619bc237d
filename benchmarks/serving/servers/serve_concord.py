"""Concord's inference as `concord inference` runs it, but for the shelf, which is in memory here: MODEL PORT."""

from __future__ import annotations

import sys

import torch
from digits_and_pictures import SHAPES, build

from concord.apps.inference import create_app, create_inference
from concord.apps.processors import inference_threads
from concord.apps.serve import Server, bind, run
from concord.serving.packing import pack_model
from concord.serving.predictor import Predictor
from concord.serving.snapshots import MemoryShelf
from concord.site.ports import Snapshot

CLASSES = tuple("0123456789")


async def nothing() -> None:
    """There is nothing to end."""


if __name__ == "__main__":
    name, port = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(inference_threads(1))
    predictor = Predictor(lambda: build(name), CLASSES, SHAPES[name], name)
    predictor.swap(
        Snapshot(version=1, round=1, step=1, fingerprint="", metrics={}, created_at=0.0, blob=pack_model(build(name)))
    )
    service = create_inference(predictor, MemoryShelf())
    run(Server(create_app(service), bind("127.0.0.1", port)), at_end=nothing)
