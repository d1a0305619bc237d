"""Run by the Python of an environment with KServe in it: its client and its types speak to the site at a URL."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.rest.v2_datamodels import ModelMetadataResponse, ServerMetadataResponse

URL, MODEL = sys.argv[1], sys.argv[2]
ROWS = np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 64)


def given(binary: bool) -> InferRequest:
    """Two rows."""
    tensor = InferInput("input", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(MODEL, [tensor], request_id="k1")


async def main() -> None:
    """Ask everything that the client can."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(URL)
    assert await client.is_server_ready(URL)
    assert await client.is_model_ready(URL, MODEL)
    answers = [await client.infer(URL, given(binary), model_name=MODEL) for binary in (False, True)]
    for answer in answers:
        assert (answer.id, answer.model_name) == ("k1", MODEL)
        assert [output.name for output in answer.outputs] == ["output", "probabilities", "label"]
        assert answer.outputs[0].as_numpy().shape == (2, 10)
    first, second = (answer.outputs[0].as_numpy() for answer in answers)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    await client.close()

    import httpx

    async with httpx.AsyncClient(base_url=URL) as plain:
        ServerMetadataResponse.model_validate((await plain.get("/v2")).json())
        ModelMetadataResponse.model_validate((await plain.get(f"/v2/models/{MODEL}")).json())
    print("spoke")


asyncio.run(main())
