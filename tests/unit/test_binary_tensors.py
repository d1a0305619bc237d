"""Requests and answers with binary data, and tensors as raw bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from concord.errors import BodyError, InputError
from concord.learning.pictures import PictureForm
from concord.serving import protocol
from concord.serving.binary import read_binary, split_elements, tensor_bytes, text_bytes
from concord.serving.bodies import Reply
from concord.serving.pictures import Pictures
from concord.serving.predictor import Predictor
from served_models import CLASSES, ROW, build_model, marked_snapshot, new_predictor, snapshot_of

SERVED = new_predictor().swap(marked_snapshot(3))
PICTURED = Predictor(build_model, CLASSES, (4,), "pictures", picture=PictureForm(1, 2, 2)).swap(marked_snapshot(1))


def tensor(data: bytes, /, **changes: object) -> dict[str, Any]:
    about = {"name": "input", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    return {**about, **changes}


def ask(data: bytes, fields: Mapping[str, object], served: Any = SERVED) -> protocol.InferRequest:
    text = json.dumps(fields).encode()
    return protocol.read_request(text + data, served, len(text))


def answer(request: protocol.InferRequest) -> Reply:
    assert isinstance(request.inputs, torch.Tensor)
    return request.reply(SERVED.predict(request.inputs))


def parts(reply: Reply) -> tuple[dict[str, Any], bytes]:
    assert reply.json_bytes is not None
    return json.loads(reply.body[: reply.json_bytes]), reply.body[reply.json_bytes :]


FP32 = struct.pack("<4f", *ROW)


@pytest.mark.parametrize(
    ("datatype", "form", "values"),
    [
        ("BOOL", "4?", [True, False, True, True]),
        ("UINT8", "4B", [0, 1, 128, 255]),
        ("UINT16", "4H", [0, 1, 256, 2**16 - 1]),
        ("UINT32", "4I", [0, 1, 2**16, 2**24]),
        ("UINT64", "4Q", [0, 1, 2**32, 2**40]),
        ("INT8", "4b", [-128, -1, 0, 127]),
        ("INT16", "4h", [-(2**15), -1, 0, 2**15 - 1]),
        ("INT32", "4i", [-(2**24), -1, 0, 2**24]),
        ("INT64", "4q", [-(2**40), -1, 0, 2**40]),
        ("FP16", "4e", [0.5, -1.0, 0.25, 2.0]),
        ("FP32", "4f", [0.5, -1.0, 0.25, 2.0]),
        ("FP64", "4d", [0.5, -1.0, 0.25, 2.0]),
    ],
)
def test_every_datatype_becomes_float32(datatype: str, form: str, values: list[float]) -> None:
    data = struct.pack("<" + form, *values)
    found = read_binary(memoryview(data), (2, 2), datatype, "x")
    assert torch.equal(found, torch.tensor([float(value) for value in values]).view(2, 2))
    request = ask(data, {"inputs": [tensor(data, datatype=datatype)]})
    assert isinstance(request.inputs, torch.Tensor)
    assert torch.equal(request.inputs, found.view(1, 4))


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    upper = b"".join(struct.pack("<f", value)[2:] for value in ROW)
    assert torch.equal(read_binary(memoryview(upper), (4,), "BF16", "x"), torch.tensor(ROW))


@pytest.mark.parametrize(
    ("datatype", "data", "field"),
    [
        ("FP32", FP32[:-1], "x"),
        ("FP32", FP32 + b"\0", "x"),
        ("FP32", struct.pack("<4f", 0, 0, float("nan"), 0), "x[1][0]"),
        ("FP16", struct.pack("<4e", 0, float("inf"), 0, 0), "x[0][1]"),
        ("FP64", struct.pack("<4d", 0, 0, 0, 1e300), "x[1][1]"),
        ("BOOL", b"\0\1\2\0", "x[1][0]"),
    ],
)
def test_bytes_that_are_not_such_a_tensor_are_refused(datatype: str, data: bytes, field: str) -> None:
    with pytest.raises(InputError) as error:
        read_binary(memoryview(data), (2, 2), datatype, "x")
    assert error.value.field == field


@given(st.lists(st.binary(max_size=9), max_size=6))
def test_elements_of_bytes_come_back(elements: list[bytes]) -> None:
    data = b"".join(len(one).to_bytes(4, "little") + one for one in elements)
    assert list(split_elements(memoryview(data), len(elements), "x")) == elements
    for wrong in (len(elements) + 1, len(elements) - 1):
        with pytest.raises(InputError):
            split_elements(memoryview(data), wrong, "x")


@given(st.binary(max_size=40), st.integers(0, 5))
def test_no_bytes_whatever_are_read_beyond_their_end(data: bytes, count: int) -> None:
    try:
        elements = split_elements(memoryview(data), count, "x")
    except InputError:
        return
    assert sum(map(len, elements)) + 4 * count == len(data)


def test_values_and_texts_as_bytes() -> None:
    assert tensor_bytes(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t()) == struct.pack("<4f", 1, 3, 2, 4)
    assert text_bytes(["é", ""]) == b"\x02\0\0\0\xc3\xa9\0\0\0\0"


def test_an_answer_is_binary_where_that_was_asked_for() -> None:
    outputs = [{"name": "label"}, {"name": "output", "parameters": {"binary_data": True}}]
    reply = answer(ask(FP32, {"inputs": [tensor(FP32)], "outputs": outputs}))
    fields, data = parts(reply)
    assert fields["outputs"] == [
        {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["cat"]},
        {"name": "output", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}},
    ]
    assert data == struct.pack("<3f", 3, 0, -3)


def test_all_outputs_can_be_asked_for_as_binary_data_and_one_of_them_not() -> None:
    everything = {"inputs": [tensor(FP32)], "parameters": {"binary_data_output": True}}
    fields, data = parts(answer(ask(FP32, everything)))
    assert [one["parameters"]["binary_data_size"] for one in fields["outputs"]] == [12, 12, 7]
    assert data.endswith(b"\x03\0\0\0cat")
    text = {**everything, "outputs": [{"name": "label", "parameters": {"binary_data": False}}]}
    assert answer(ask(FP32, text)).json_bytes is None


def test_a_body_of_nothing_but_rows() -> None:
    request = protocol.read_request(FP32 + FP32, SERVED, 0)
    assert isinstance(request.inputs, torch.Tensor)
    assert torch.equal(request.inputs, torch.tensor([ROW, ROW]))
    fields, _ = parts(answer(request))
    assert [one["shape"] for one in fields["outputs"]] == [[2, 3], [2, 3], [2]]
    for wrong in (b"", FP32[:-1]):
        with pytest.raises(InputError, match="16 bytes"):
            protocol.read_request(wrong, SERVED, 0)


def test_the_likeliest_classes_can_be_asked_for() -> None:
    outputs = [{"name": "output", "parameters": {"classification": 2}}]
    fields = json.loads(answer(ask(FP32, {"inputs": [tensor(FP32)], "outputs": outputs})).body)
    (ranked,) = fields["outputs"]
    assert ranked == {
        "name": "output",
        "shape": [1, 2],
        "datatype": "BYTES",
        "data": ["3.000000:0:cat", "0.000000:1:dog"],
    }


BAD: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "more than there is": (FP32[:-4], {"inputs": [tensor(FP32)]}, "inputs[0].parameters.binary_data_size"),
    "more than is said": (FP32 * 2, {"inputs": [tensor(FP32)]}, "inputs[0].parameters.binary_data_size"),
    "unlike its shape": (FP32[:8], {"inputs": [tensor(FP32[:8])]}, "inputs[0].data"),
    "data twice": (FP32, {"inputs": [tensor(FP32, data=ROW)]}, "inputs[0].data"),
    "a size that is none": (
        FP32,
        {"inputs": [tensor(b"", parameters={"binary_data_size": "16"})]},
        "inputs[0].parameters.binary_data_size",
    ),
    "parameters no object": (FP32, {"inputs": [tensor(b"", parameters=[])]}, "inputs[0].parameters"),
    "no flag": (
        FP32,
        {"inputs": [tensor(FP32)], "parameters": {"binary_data_output": 1}},
        "parameters.binary_data_output",
    ),
    "too many classes": (
        FP32,
        {"inputs": [tensor(FP32)], "outputs": [{"name": "output", "parameters": {"classification": 4}}]},
        "outputs[0].parameters.classification",
    ),
    "labels ranked": (
        FP32,
        {"inputs": [tensor(FP32)], "outputs": [{"name": "label", "parameters": {"classification": 1}}]},
        "outputs[0].parameters.classification",
    ),
    "pictures for a task without": (FP32, {"inputs": [tensor(FP32, datatype="BYTES")]}, "inputs[0].datatype"),
}


@pytest.mark.parametrize(("data", "fields", "field"), BAD.values(), ids=BAD)
def test_a_bad_request_names_the_field(data: bytes, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as error:
        ask(data, fields)
    assert error.value.field == field


def test_a_size_without_the_header_that_says_where_the_data_begins() -> None:
    with pytest.raises(InputError, match="Inference-Header-Content-Length"):
        protocol.read_request(json.dumps({"inputs": [tensor(FP32)]}).encode(), SERVED)


def test_json_that_ends_elsewhere_than_it_was_said() -> None:
    text = json.dumps({"inputs": [tensor(FP32)]}).encode()
    with pytest.raises(BodyError):
        protocol.read_request(text + FP32, SERVED, len(text) - 1)


def test_pictures_travel_as_elements_of_bytes() -> None:
    file = BytesIO()
    Image.frombytes("L", (2, 2), bytes([0, 255, 128, 7])).save(file, "PNG")
    data = len(file.getvalue()).to_bytes(4, "little") + file.getvalue()
    request = ask(data, {"inputs": [tensor(data, datatype="BYTES", shape=[1])]}, PICTURED)
    assert isinstance(request.inputs, Pictures)
    assert request.inputs.decode((4,)).tolist() == [[0.0, 255.0, 128.0, 7.0]]


@pytest.mark.parametrize("shape", [[0], [65], [1, 4], "1", [True], None])
def test_pictures_must_be_counted_right(shape: object) -> None:
    with pytest.raises(InputError) as error:
        ask(b"", {"inputs": [tensor(b"", datatype="BYTES", shape=shape)]}, PICTURED)
    assert error.value.field == "inputs[0].shape"


@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_bytes_whatever_do_more_than_be_refused(body: bytes, json_bytes: int) -> None:
    try:
        request = protocol.read_request(body, SERVED, min(json_bytes, len(body)))
    except InputError:
        return
    assert isinstance(request.inputs, torch.Tensor)
    assert request.inputs.shape[1:] == (4,)


def test_a_model_without_classes_has_nothing_to_rank() -> None:
    served = Predictor(build_model, (), (4,), "regression").swap(snapshot_of(build_model(), 1))
    outputs = [{"name": "output", "parameters": {"classification": 1}}]
    with pytest.raises(InputError, match="classifier"):
        ask(FP32, {"inputs": [tensor(FP32)], "outputs": outputs}, served)
