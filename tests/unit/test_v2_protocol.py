"""The two prediction formats without HTTP: what is read, what is answered, what is refused and how."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from concord.errors import BodyError, InputError
from concord.serving import plain, protocol
from concord.serving.bodies import Question
from concord.serving.predictor import Predictor, ServedModel
from concord.serving.tensors import DATATYPES, nested_shape, read_tensor
from served_models import CLASSES, ROW, build_model, marked_snapshot, new_predictor, snapshot_of

SERVED = new_predictor().swap(marked_snapshot(3))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def request(**changes: object) -> dict[str, Any]:
    """A valid request for one row, with fields of its tensor changed."""
    return {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW, **changes}]}


def infer(fields: Mapping[str, object], served: ServedModel = SERVED) -> dict[str, Any]:
    return answer_to(protocol.read_request(json.dumps(fields).encode(), served), served)


def predict(inputs: object, served: ServedModel = SERVED) -> dict[str, Any]:
    return answer_to(plain.read_request(json.dumps({"inputs": inputs}).encode(), served), served)


def answer_to(question: Question, served: ServedModel) -> dict[str, Any]:
    """What a service answers, as JSON."""
    assert isinstance(question.inputs, torch.Tensor)
    answer: dict[str, Any] = json.loads(question.reply(served.predict(question.inputs)).body)
    return answer


def outputs(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {output["name"]: output for output in answer["outputs"]}


def wrong_field(answer: Callable[[], object]) -> str | None:
    """The field that an InputError names, or None if there was an answer; no other error passes."""
    try:
        answer()
    except InputError as error:
        return error.field
    return None


def test_an_answer_has_every_output_of_a_classifier_and_says_which_model_it_is_from() -> None:
    answer = infer({"id": "a1", **request()})
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("animals", "3", "a1")
    assert answer["parameters"] == {"round": 30, "step": 240}
    by_name = outputs(answer)
    assert list(by_name) == ["output", "probabilities", "label"]
    assert by_name["output"] == {
        "name": "output",
        "shape": [1, 3],
        "datatype": "FP32",
        "data": [3.0, 0.0, -3.0],
    }
    assert math.isclose(sum(by_name["probabilities"]["data"]), 1.0, rel_tol=1e-6)
    assert by_name["label"] == {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["cat"]}


def test_an_id_is_only_answered_if_one_was_given() -> None:
    assert "id" not in infer(request())


def test_only_the_outputs_asked_for_are_answered_in_their_order() -> None:
    answer = infer({**request(), "outputs": [{"name": "label"}, {"name": "output", "parameters": {}}]})
    assert [output["name"] for output in answer["outputs"]] == ["label", "output"]


def test_a_model_without_classes_offers_its_outputs_only() -> None:
    predictor = Predictor(build_model, (), (4,), "regression")
    served = predictor.swap(snapshot_of(build_model(), 1))
    assert list(outputs(infer(request(), served))) == ["output"]
    assert len(predict([ROW, ROW], served)["predictions"][1]["outputs"]) == 3
    with pytest.raises(InputError, match="one of output"):
        infer({**request(), "outputs": [{"name": "label"}]}, served)


@pytest.mark.parametrize(
    "data",
    [[*ROW, *ROW], [ROW, ROW], [[0.5, -1, 0.25, 2], [0.5, -1, 0.25, 2]]],
    ids=["flat", "nested", "integers among floats"],
)
def test_flat_and_nested_data_are_the_same(data: object) -> None:
    assert torch.equal(read_tensor(data, (2, 4), "FP32", "x"), torch.tensor([ROW, ROW]))


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("FP16", [0.5, 2]),
        ("BF16", [0.5, 2]),
        ("FP32", [0.5, 2]),
        ("FP64", [0.5, -3e38]),
        ("INT8", [-128, 127]),
        ("INT16", [-(2**15), 2**15 - 1]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT8", [0, 255]),
        ("UINT16", [0, 2**16 - 1]),
        ("UINT32", [0, 2**32 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("BOOL", [True, False]),
    ],
)
def test_every_datatype_becomes_float32(datatype: str, values: list[float]) -> None:
    tensor = read_tensor(values, (2,), datatype, "x")
    assert tensor.dtype is torch.float32
    assert torch.equal(tensor, torch.tensor([float(value) for value in values]))
    assert datatype in DATATYPES


@pytest.mark.parametrize(
    ("datatype", "values", "place"),
    [
        ("FP32", [0.0, "1"], "x[1]"),
        ("FP32", [None, 0.0], "x[0]"),
        ("FP32", [True, 0.0], "x[0]"),
        ("FP32", [0.0, math.nan], "x[1]"),
        ("FP32", [math.inf, 0.0], "x[0]"),
        ("FP64", [0.0, 1e300], "x[1]"),
        ("FP64", [0.0, 10**400], "x[1]"),
        ("INT8", [0, 128], "x[1]"),
        ("INT8", [-129, 0], "x[0]"),
        ("UINT8", [0, -1], "x[1]"),
        ("UINT64", [2**64, 0], "x[0]"),
        ("INT32", [1.0, 0], "x[0]"),
        ("BOOL", [1, 0], "x[0]"),
    ],
)
def test_a_value_that_does_not_fit_its_datatype_is_named(datatype: str, values: list[object], place: str) -> None:
    with pytest.raises(InputError) as error:
        read_tensor(values, (2,), datatype, "x")
    assert error.value.field == place


def test_the_place_of_a_wrong_value_has_an_index_per_dimension() -> None:
    data = [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], ["six", 7.0]]]
    with pytest.raises(InputError) as error:
        read_tensor(data, (2, 2, 2), "FP32", "x")
    assert error.value.field == "x[1][1][0]"


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": ({}, "inputs"),
    "inputs no list": ({"inputs": {}}, "inputs"),
    "two inputs": ({"inputs": request()["inputs"] * 2}, "inputs"),
    "an input that is no object": ({"inputs": [3]}, "inputs[0]"),
    "another name": (request(name="pixels"), "inputs[0].name"),
    "unknown datatype": (request(datatype="BYTES"), "inputs[0].datatype"),
    "datatype no text": (request(datatype=["FP32"]), "inputs[0].datatype"),
    "shape missing": (request(shape=None), "inputs[0].shape"),
    "row too short": (request(shape=[1, 3]), "inputs[0].shape"),
    "no rows": (request(shape=[0, 4], data=[]), "inputs[0].shape"),
    "negative rows": (request(shape=[-1, 4]), "inputs[0].shape"),
    "no row dimension": (request(shape=[4]), "inputs[0].shape"),
    "shape of booleans": (request(shape=[True, 4]), "inputs[0].shape"),
    "absurd shape": (request(shape=[10**30, 4]), "inputs[0].data"),
    "too few values": (request(data=ROW[:3]), "inputs[0].data"),
    "too many values": (request(data=[ROW, ROW]), "inputs[0].data"),
    "ragged": (request(shape=[2, 4], data=[ROW, ROW[:3]]), "inputs[0].data"),
    "data missing": (request(data=None), "inputs[0].data"),
    "a word": (request(data=[[0.0, 1.0, "two", 3.0]]), "inputs[0].data[0][2]"),
    "id no text": ({**request(), "id": 7}, "id"),
    "outputs no list": ({**request(), "outputs": "label"}, "outputs"),
    "output no object": ({**request(), "outputs": ["label"]}, "outputs[0]"),
    "unknown output": ({**request(), "outputs": [{"name": "label"}, {"name": "x"}]}, "outputs[1].name"),
}


@pytest.mark.parametrize(("fields", "field"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_names_the_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as error:
        infer(fields)
    assert error.value.field == field
    assert error.value.expected


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 100_000, b'{"inputs": 1' + b"0" * 5000 + b"}"]
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    for read in (protocol.read_request, plain.read_request):
        with pytest.raises(BodyError):
            read(body, SERVED)


@pytest.mark.parametrize("inputs", [ROW, [ROW]], ids=["one row", "a list of one row"])
def test_the_plain_format_takes_one_row_with_or_without_a_list(inputs: object) -> None:
    answer = predict(inputs)
    assert answer["model"] == {"name": "animals", "version": 3, "round": 30}
    (prediction,) = answer["predictions"]
    assert (prediction["label"], prediction["class"]) == (CLASSES[0], 0)
    assert prediction["probability"] == max(prediction["probabilities"])


@pytest.mark.parametrize("inputs", [[[[1, 2], [3, 4]]], [[1, 2], [3, 4]], [1, 2, 3, 4], [[1, 2, 3, 4]]])
def test_a_row_of_an_image_may_be_flat_or_nested(inputs: object) -> None:
    assert torch.equal(plain.parse_inputs(inputs, (2, 2)), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        (None, "inputs"),
        ("cat", "inputs"),
        ([], "inputs"),
        ([[]], "inputs"),
        ([1, 2, 3], "inputs"),
        ([ROW, ROW[:2]], "inputs"),
        ([ROW, 5], "inputs"),
        ([[[ROW]]], "inputs"),
        ([ROW, [1, 2, 3, "x"]], "inputs[1][3]"),
        ([1, 2, 3, math.nan], "inputs[3]"),
    ],
)
def test_plain_inputs_that_do_not_fit_are_refused(inputs: object, field: str) -> None:
    with pytest.raises(InputError) as error:
        predict(inputs)
    assert error.value.field == field


def test_metadata_describes_the_tensors() -> None:
    described = protocol.describe_model(SERVED, (2, 3))
    assert described["versions"] == ["2", "3"]
    assert described["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert described["outputs"] == [
        {"name": "output", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=8, max_size=8),
    st.sampled_from([(2, 4), (8,), (2, 2, 2), (1, 8)]),
)
def test_reading_is_exact_and_independent_of_nesting(values: list[float], shape: tuple[int, ...]) -> None:
    expected = torch.tensor(values, dtype=torch.float32).view(shape)
    assert nested_shape(expected.tolist()) == shape
    assert torch.equal(read_tensor(expected.tolist(), shape, "FP32", "x"), expected)
    assert torch.equal(read_tensor(values, shape, "FP64", "x"), expected)


@given(JSON, st.sampled_from(["id", "outputs", "inputs", "name", "shape", "datatype", "data"]))
@example([[ROW]], "data")
@example([1, 4.0], "shape")
def test_whatever_a_field_holds_the_answer_is_finite_json_or_an_input_error(value: object, key: str) -> None:
    fields = {**request(), key: value} if key in ("id", "outputs", "inputs") else request(**{key: value})
    field = wrong_field(lambda: infer(fields))
    assert field is None or field.startswith(("id", "outputs", "inputs"))


@given(JSON)
@example([[0.0] * 4, [0.0] * 4])
def test_whatever_the_plain_inputs_are_the_answer_is_finite_json_or_an_input_error(value: object) -> None:
    field = wrong_field(lambda: predict(value))
    assert field is None or field.startswith("inputs")
