"""KServe's Python server with a model of one's own: `python serve_kserve.py --model_name MODEL --http_port PORT`."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import kserve
import torch
from digits_and_pictures import ready
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class TorchModel(Model):  # type: ignore[misc]
    """Answers with the outputs of the network."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.network = ready(name)
        self.ready = True

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """See the base class."""
        with torch.inference_mode():
            found = self.network(torch.from_numpy(payload.inputs[0].as_numpy())).numpy()
        output = InferOutput(name="output", shape=list(found.shape), datatype="FP32")
        output.set_data_from_numpy(found, binary_data=False)
        return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.INFO)
    ModelServer(http_port=arguments.http_port, enable_grpc=False, workers=1, access_log_format=None).start(
        [TorchModel(arguments.model_name)]
    )
