"""BentoML with adaptive batching; MODEL is in the environment: `bentoml serve` takes no arguments of one's own."""

from __future__ import annotations

import os

import bentoml
import numpy as np
import torch
from digits_and_pictures import SHAPES, ready

NAME = os.environ["MODEL"]


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Served:
    """Answers with the outputs of the network."""

    def __init__(self) -> None:
        self.network = ready(NAME)

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Rows, each flat."""
        with torch.inference_mode():
            rows = torch.from_numpy(inputs.astype(np.float32)).view(-1, *SHAPES[NAME])
            return self.network(rows).numpy()
