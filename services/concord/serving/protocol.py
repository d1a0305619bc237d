"""The Open Inference Protocol, version 2, in its REST form: request to tensor, prediction to answer.

Source: https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md). Pure:
must not know HTTP. Parses by hand, because every request passes here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from concord.errors import InputError
from concord.serving.bodies import Fields, Reply, encode, parse_object, predict
from concord.serving.predictor import Prediction, ServedModel
from concord.serving.tensors import DATATYPES, read_tensor

INPUT = "input"
OUTPUT = "output"
PROBABILITIES = "probabilities"
LABEL = "label"


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One checked request; `outputs` names what the answer is to hold, in that order."""

    inputs: Tensor
    outputs: tuple[str, ...]
    id: str | None


def answer(body: bytes, served: ServedModel) -> Reply:
    """Answer one inference request from one model; InputError if the request is wrong."""
    request = parse_request(parse_object(body), served)
    prediction = predict(served, request.inputs, "inputs[0].data")
    return Reply(encode(format_response(request, prediction, served)), len(request.inputs))


def parse_request(fields: Fields, served: ServedModel) -> InferRequest:
    """Check a request against the model it is for; InputError names the first field that is wrong."""
    request_id = fields.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InputError("id", "a string")
    return InferRequest(
        inputs=_parse_inputs(fields.get("inputs"), served),
        outputs=_parse_outputs(fields.get("outputs"), output_names(served)),
        id=request_id,
    )


def output_names(served: ServedModel) -> tuple[str, ...]:
    """What a model can answer with: a classifier adds probabilities and a label to its raw outputs."""
    return (OUTPUT, PROBABILITIES, LABEL) if served.classes else (OUTPUT,)


def _parse_inputs(inputs: object, served: ServedModel) -> Tensor:
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise InputError("inputs", f"a list of one tensor, {INPUT!r}")
    tensor = inputs[0]
    if not isinstance(tensor, dict):
        raise InputError("inputs[0]", "an object with name, shape, datatype and data")
    if tensor.get("name") != INPUT:
        raise InputError("inputs[0].name", repr(INPUT))
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise InputError("inputs[0].datatype", "one of " + ", ".join(DATATYPES))
    shape = _parse_shape(tensor.get("shape"), served.input_shape)
    return read_tensor(tensor.get("data"), shape, datatype, "inputs[0].data")


def _parse_shape(shape: object, row: tuple[int, ...]) -> tuple[int, ...]:
    if (
        isinstance(shape, list)
        and all(type(size) is int for size in shape)
        and tuple(shape[1:]) == row
        and shape[0] > 0
    ):
        return tuple(shape)
    raise InputError("inputs[0].shape", f"[rows, {', '.join(map(str, row))}] with rows >= 1")


def _parse_outputs(outputs: object, available: tuple[str, ...]) -> tuple[str, ...]:
    if outputs is None or outputs == []:
        return available
    if not isinstance(outputs, list):
        raise InputError("outputs", "a list of objects with a name")
    return tuple(_parse_output(i, output, available) for i, output in enumerate(outputs))


def _parse_output(i: int, output: object, available: tuple[str, ...]) -> str:
    if not isinstance(output, dict):
        raise InputError(f"outputs[{i}]", "an object with a name")
    name = output.get("name")
    if name not in available:
        raise InputError(f"outputs[{i}].name", "one of " + ", ".join(available))
    return cast("str", name)


def format_response(request: InferRequest, prediction: Prediction, served: ServedModel) -> dict[str, object]:
    """The answer's fields; floats are given exactly."""
    response: dict[str, object] = {"model_name": served.name, "model_version": str(prediction.version)}
    if request.id is not None:
        response["id"] = request.id
    response["parameters"] = {"round": prediction.round, "step": prediction.snapshot.step}
    response["outputs"] = [_FORMATS[name](prediction) for name in request.outputs]
    return response


def _format_floats(name: str, tensor: Tensor) -> dict[str, object]:
    data = tensor.flatten().tolist()
    return {"name": name, "shape": list(tensor.shape), "datatype": "FP32", "data": data}


def _format_output(prediction: Prediction) -> dict[str, object]:
    return _format_floats(OUTPUT, prediction.outputs)


def _format_probabilities(prediction: Prediction) -> dict[str, object]:
    return _format_floats(PROBABILITIES, cast("Tensor", prediction.probabilities))


def _format_label(prediction: Prediction) -> dict[str, object]:
    labels = prediction.labels
    return {"name": LABEL, "shape": [len(labels)], "datatype": "BYTES", "data": list(labels)}


_FORMATS: Mapping[str, Callable[[Prediction], dict[str, object]]] = {
    OUTPUT: _format_output,
    PROBABILITIES: _format_probabilities,
    LABEL: _format_label,
}


def describe_model(served: ServedModel, versions: tuple[int, ...]) -> dict[str, object]:
    """The metadata of a model: its tensors, -1 standing for the number of rows, and the versions at hand."""
    outputs = {
        OUTPUT: ("FP32", served.output_shape),
        PROBABILITIES: ("FP32", served.output_shape),
        LABEL: ("BYTES", ()),
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
