"""The inference protocol as a client speaks it that nobody here wrote: Triton's, over a real server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

import concord
from concord.apps.inference import InferenceService, InferenceSettings, create_app, create_inference
from concord.apps.model_routes import ModelOptions
from concord.apps.serve import Server, bind, in_thread
from concord.learning.pictures import PictureForm
from concord.serving.predictor import Predictor
from concord.serving.snapshots import MemoryShelf
from concord.settings import Secret
from served_models import CLASSES, FINGERPRINT, ROW, build_model, snapshot_of

MODEL = build_model()
TOKEN = b"a token of the tests"
ROWS = np.array([ROW, [1.0, 2.0, 3.0, 4.0]], dtype=np.float32)


class Ready:
    """A service with version 7 in service, and a shelf on which nothing comes."""

    def __init__(self) -> None:
        predictor = Predictor(build_model, CLASSES, (4,), "animals", FINGERPRINT, picture=PictureForm(1, 2, 2))
        self.service: InferenceService = create_inference(
            predictor, MemoryShelf(), InferenceSettings(models=ModelOptions(admin_token=Secret(TOKEN)))
        )
        predictor.swap(snapshot_of(MODEL, 7))


@pytest.fixture(scope="module")
def client() -> Iterator[triton.InferenceServerClient]:
    server = Server(create_app(Ready().service), bind("127.0.0.1", 0))
    with in_thread(server) as url:
        client = triton.InferenceServerClient(url.removeprefix("http://"))
        with contextlib.closing(client):
            yield client


def given(array: np.ndarray[Any, Any], datatype: str, binary: bool = True) -> list[triton.InferInput]:
    tensor = triton.InferInput("input", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return [tensor]


def expected(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        found: np.ndarray[Any, Any] = MODEL(torch.from_numpy(rows.astype(np.float32))).numpy()
    return found


def test_the_three_questions_of_health(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("animals")
    assert client.is_model_ready("animals", "7")
    assert not client.is_model_ready("plants")
    assert not client.is_model_ready("animals", "6")


def test_metadata(client: triton.InferenceServerClient) -> None:
    server = client.get_server_metadata()
    assert (server["name"], server["version"]) == ("concord", concord.__version__)
    assert set(server["extensions"]) == {"binary_tensor_data", "classification", "model_repository"}
    model = client.get_model_metadata("animals", "7")
    assert (model["name"], model["versions"]) == ("animals", ["7"])
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]


@pytest.mark.parametrize("version", ["", "7"])
@pytest.mark.parametrize(("sent", "answered"), [(True, True), (True, False), (False, True), (False, False)])
def test_inference_in_json_and_in_binary(
    client: triton.InferenceServerClient, version: str, sent: bool, answered: bool
) -> None:
    names = ("output", "probabilities", "label")
    outputs = [triton.InferRequestedOutput(name, binary_data=answered) for name in names]
    result = client.infer("animals", given(ROWS, "FP32", sent), version, outputs, request_id="r1")
    assert result.get_response()["id"] == "r1"
    assert result.get_response()["model_version"] == "7"
    np.testing.assert_allclose(result.as_numpy("output"), expected(ROWS), rtol=1e-6)
    np.testing.assert_allclose(result.as_numpy("probabilities").sum(axis=1), 1.0, rtol=1e-6)
    labels = [one.decode() if answered else one for one in result.as_numpy("label")]
    assert labels == [CLASSES[winner] for winner in expected(ROWS).argmax(axis=1)]


def test_all_outputs_come_in_binary_if_none_is_named(client: triton.InferenceServerClient) -> None:
    result = client.infer("animals", given(ROWS, "FP32"))
    np.testing.assert_allclose(result.as_numpy("output"), expected(ROWS), rtol=1e-6)
    assert result.get_output("output")["parameters"] == {"binary_data_size": 24}


@pytest.mark.parametrize(
    ("datatype", "kind"),
    [
        ("BOOL", np.bool_),
        ("UINT8", np.uint8),
        ("UINT16", np.uint16),
        ("UINT32", np.uint32),
        ("UINT64", np.uint64),
        ("INT8", np.int8),
        ("INT16", np.int16),
        ("INT32", np.int32),
        ("INT64", np.int64),
        ("FP16", np.float16),
        ("FP32", np.float32),
        ("FP64", np.float64),
        ("BF16", ml_dtypes.bfloat16),
    ],
)
def test_every_datatype(client: triton.InferenceServerClient, datatype: str, kind: type[Any]) -> None:
    rows = np.array([[0, 1, 1, 0]], dtype=kind)
    result = client.infer("animals", given(rows, datatype))
    np.testing.assert_allclose(result.as_numpy("output"), expected(rows), rtol=1e-6)


def test_the_likeliest_classes(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("probabilities", class_count=2)]
    ranked = client.infer("animals", given(ROWS, "FP32"), outputs=outputs).as_numpy("probabilities")
    assert ranked.shape == (2, 2)
    for row, winner in zip(ranked, expected(ROWS).argmax(axis=1), strict=True):
        value, place, label = row[0].decode().split(":")
        assert (int(place), label) == (winner, CLASSES[winner])
        assert 1 / 3 <= float(value) <= 1


def test_a_picture_in_its_file(client: triton.InferenceServerClient) -> None:
    file = BytesIO()
    Image.frombytes("L", (2, 2), bytes([1, 2, 3, 4])).save(file, "PNG")
    result = client.infer("animals", given(np.array([file.getvalue()], dtype=np.object_), "BYTES"))
    np.testing.assert_allclose(result.as_numpy("output"), expected(ROWS[1:]), rtol=1e-6)


def test_a_body_of_nothing_but_rows(client: triton.InferenceServerClient) -> None:
    body = ROWS.tobytes()
    answer = client._post("v2/models/animals/infer", body, {"Inference-Header-Content-Length": "0"}, None)
    length = int(answer.get("Inference-Header-Content-Length"))
    assert answer.status_code == 200
    result = triton.InferResult.from_response_body(answer.read(), header_length=length)
    np.testing.assert_allclose(result.as_numpy("output"), expected(ROWS), rtol=1e-6)


def test_many_requests_at_once(client: triton.InferenceServerClient) -> None:
    with contextlib.closing(triton.InferenceServerClient(f"{_address(client)}", concurrency=8)) as many:
        waiting = [(rows, many.async_infer("animals", given(rows, "FP32"))) for rows in [ROWS, ROWS[:1], ROWS[1:]] * 10]
        for rows, answer in waiting:
            np.testing.assert_allclose(answer.get_result().as_numpy("output"), expected(rows), rtol=1e-5)


def test_unload_takes_the_model_out_of_service_until_load(client: triton.InferenceServerClient) -> None:
    (entry,) = client.get_model_repository_index()
    assert entry == {"name": "animals", "version": "7", "state": "READY", "reason": ""}
    headers = {"Authorization": f"Bearer {TOKEN.decode()}"}
    client.unload_model("animals", headers)
    try:
        assert not client.is_model_ready("animals")
        assert not client.is_server_ready()
        assert client.is_server_live()
        assert client.get_model_repository_index()[0]["state"] == "UNAVAILABLE"
        with pytest.raises(InferenceServerException, match="load") as error:
            client.infer("animals", given(ROWS, "FP32"))
        assert "503" in error.value.status()
    finally:
        client.load_model("animals", headers)
    assert client.is_model_ready("animals")
    with pytest.raises(InferenceServerException, match="training"):
        client.load_model("animals", headers, config="{}")


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_refused(client: triton.InferenceServerClient, algorithm: str) -> None:
    with pytest.raises(InferenceServerException, match="Content-Encoding") as error:
        client.infer("animals", given(ROWS, "FP32"), request_compression_algorithm=algorithm)
    assert "415" in error.value.status()


def test_a_wrong_shape_is_said(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="rows >= 1") as error:
        client.infer("animals", given(ROWS[:, :3], "FP32"))
    assert "400" in error.value.status()


def _address(client: triton.InferenceServerClient) -> str:
    address: str = client._parsed_url.netloc
    return address
