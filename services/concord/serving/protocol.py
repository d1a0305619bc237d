"""The Open Inference Protocol, version 2, in its REST form: request to tensor, prediction to answer.

Source: https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md), and the extensions
for binary tensors and for classification as Triton describes them. Pure: must not know HTTP. Parses by hand, because
every request passes here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from concord.errors import InputError
from concord.serving.answers import LABEL, OUTPUT, PROBABILITIES, Wanted, output_names, write_output
from concord.serving.binary import BYTES, read_binary, split_elements
from concord.serving.bodies import Fields, Reply, encode, parse_object
from concord.serving.pictures import MAX_PICTURES, Pictures
from concord.serving.predictor import Prediction, ServedModel
from concord.serving.tensors import DATATYPES, read_tensor

INPUT = "input"
EXTENSIONS = ("binary_tensor_data", "classification", "model_repository")
"""What is spoken here besides the protocol itself."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One checked request; `outputs` says what the answer is to hold, in that order."""

    served: ServedModel
    inputs: Tensor | Pictures
    outputs: tuple[Wanted, ...]
    id: str | None = None
    field: str = "inputs[0].data"

    def reply(self, prediction: Prediction) -> Reply:
        """JSON, followed by the outputs that were asked for as binary data."""
        binary: list[bytes] = []
        text = encode(self._fields(prediction, binary))
        return Reply(b"".join([text, *binary]), len(text)) if binary else Reply(text)

    def _fields(self, prediction: Prediction, binary: list[bytes]) -> dict[str, object]:
        fields: dict[str, object] = {"model_name": self.served.name, "model_version": str(prediction.version)}
        if self.id is not None:
            fields["id"] = self.id
        fields["parameters"] = {"round": prediction.round, "step": prediction.snapshot.step}
        fields["outputs"] = [write_output(wanted, prediction, self.served, binary) for wanted in self.outputs]
        return fields


def read_request(body: bytes, served: ServedModel, json_bytes: int | None = None) -> InferRequest:
    """A request from its body, of which `json_bytes` are JSON and the rest binary data; None: all is JSON.

    With 0 the body is nothing but the rows themselves, as FP32, and the answer is binary. BodyError if what should be
    JSON is not, InputError naming the first field that is wrong.
    """
    if json_bytes == 0:
        return _raw_request(memoryview(body), served)
    data = _Data(memoryview(body)[json_bytes:]) if json_bytes is not None else None
    fields = parse_object(body if json_bytes is None else body[:json_bytes])
    request_id = fields.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InputError("id", "a string")
    parameters = _parameters(fields, "parameters")
    request = InferRequest(
        served=served,
        inputs=_read_inputs(fields.get("inputs"), served, data),
        outputs=_read_outputs(fields.get("outputs"), served, _flag(parameters, "binary_data_output", "parameters")),
        id=request_id,
    )
    if data is not None and data.left:
        raise InputError("inputs[0].parameters.binary_data_size", f"all binary data; {data.left} bytes are left over")
    return request


def _raw_request(data: memoryview, served: ServedModel) -> InferRequest:
    row_bytes = 4 * math.prod(served.input_shape)
    if not data or len(data) % row_bytes:
        raise InputError("body", f"rows of {row_bytes} bytes, which is one row as FP32, not {len(data)} bytes")
    inputs = read_binary(data, (len(data) // row_bytes, *served.input_shape), "FP32", "body")
    return InferRequest(served, inputs, tuple(Wanted(name, True) for name in output_names(served)), field="body")


class _Data:
    """The binary data behind the JSON, taken from its front."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    @property
    def left(self) -> int:
        return len(self._view)

    def take(self, size: int, field: str) -> memoryview:
        if size > self.left:
            raise InputError(field, f"at most the {self.left} bytes that follow the JSON")
        taken, self._view = self._view[:size], self._view[size:]
        return taken


def _read_inputs(inputs: object, served: ServedModel, data: _Data | None) -> Tensor | Pictures:
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise InputError("inputs", f"a list of one tensor, {INPUT!r}")
    tensor = inputs[0]
    if not isinstance(tensor, dict):
        raise InputError("inputs[0]", "an object with name, shape, datatype and data")
    if tensor.get("name") != INPUT:
        raise InputError("inputs[0].name", repr(INPUT))
    datatype = tensor.get("datatype")
    known = DATATYPES if served.picture is None else (*DATATYPES, BYTES)
    if not isinstance(datatype, str) or datatype not in known:
        raise InputError("inputs[0].datatype", "one of " + ", ".join(known))
    binary = _take_binary(tensor, data)
    if datatype == BYTES:
        return _read_pictures(tensor.get("shape"), binary, served)
    shape = _read_shape(tensor.get("shape"), served.input_shape)
    if binary is not None:
        return read_binary(binary, shape, datatype, "inputs[0].data")
    return read_tensor(tensor.get("data"), shape, datatype, "inputs[0].data")


def _take_binary(tensor: Fields, data: _Data | None) -> memoryview | None:
    size = _parameters(tensor, "inputs[0].parameters").get("binary_data_size")
    if size is None:
        return None
    field = "inputs[0].parameters.binary_data_size"
    if data is None:
        raise InputError(field, "a request with the header Inference-Header-Content-Length")
    if type(size) is not int or size < 0:
        raise InputError(field, "a number of bytes")
    if "data" in tensor:
        raise InputError("inputs[0].data", "nothing, if there is binary_data_size")
    return data.take(size, field)


def _read_pictures(shape: object, binary: memoryview | None, served: ServedModel) -> Pictures:
    if binary is None or served.picture is None:
        raise InputError("inputs[0].data", "pictures as binary data (binary_data_size); JSON cannot carry them")
    fits = isinstance(shape, list) and all(type(size) is int for size in shape) and shape[1:] in ([], [1])
    if not fits or not 1 <= cast("list[int]", shape)[0] <= MAX_PICTURES:
        raise InputError("inputs[0].shape", f"[pictures] or [pictures, 1], with 1 to {MAX_PICTURES} pictures")
    files = split_elements(binary, cast("list[int]", shape)[0], "inputs[0].data")
    return Pictures(files, served.picture, "inputs[0].data")


def _read_shape(shape: object, row: tuple[int, ...]) -> tuple[int, ...]:
    if (
        isinstance(shape, list)
        and all(type(size) is int for size in shape)
        and tuple(shape[1:]) == row
        and shape[0] > 0
    ):
        return tuple(shape)
    raise InputError("inputs[0].shape", f"[rows, {', '.join(map(str, row))}] with rows >= 1")


def _read_outputs(outputs: object, served: ServedModel, binary: bool) -> tuple[Wanted, ...]:
    available = output_names(served)
    if outputs is None or outputs == []:
        return tuple(Wanted(name, binary) for name in available)
    if not isinstance(outputs, list):
        raise InputError("outputs", "a list of objects with a name")
    return tuple(_read_output(i, output, available, served, binary) for i, output in enumerate(outputs))


def _read_output(i: int, output: object, available: tuple[str, ...], served: ServedModel, binary: bool) -> Wanted:
    if not isinstance(output, dict):
        raise InputError(f"outputs[{i}]", "an object with a name")
    name = output.get("name")
    if name not in available:
        raise InputError(f"outputs[{i}].name", "one of " + ", ".join(available))
    place = f"outputs[{i}].parameters"
    parameters = _parameters(output, place)
    return Wanted(
        name=cast("str", name),
        binary=_flag(parameters, "binary_data", place, binary),
        top=_read_classification(parameters.get("classification"), cast("str", name), served, place),
    )


def _read_classification(count: object, name: str, served: ServedModel, place: str) -> int | None:
    if count is None:
        return None
    field, classes = f"{place}.classification", len(served.classes)
    if name == LABEL or not classes:
        raise InputError(field, f"nothing: only {OUTPUT} and {PROBABILITIES} of a classifier can be ranked")
    if type(count) is not int or not 1 <= count <= classes:
        raise InputError(field, f"how many of the likeliest classes, from 1 to {classes}")
    return count


def _parameters(fields: Fields, field: str) -> Mapping[str, object]:
    parameters = fields.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InputError(field, "an object")
    return parameters


def _flag(parameters: Mapping[str, object], name: str, place: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{place}.{name}", "true or false")
    return value


def describe_model(served: ServedModel, versions: tuple[int, ...]) -> dict[str, object]:
    """The metadata of a model: its tensors, -1 standing for the number of rows, and the versions at hand."""
    outputs = {
        OUTPUT: ("FP32", served.output_shape),
        PROBABILITIES: ("FP32", served.output_shape),
        LABEL: (BYTES, ()),
    }
    return {
        "name": served.name,
        "versions": [str(version) for version in versions],
        "platform": "pytorch",
        "inputs": [_describe_tensor(INPUT, "FP32", served.input_shape)],
        "outputs": [_describe_tensor(name, *outputs[name]) for name in output_names(served)],
        "parameters": {"classes": list(served.classes), "row_values": math.prod(served.input_shape)},
    }


def _describe_tensor(name: str, datatype: str, row: tuple[int, ...]) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": [-1, *row]}
