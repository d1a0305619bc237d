"""What the OpenAPI page says about the prediction routes: request and answer forms with an example each."""

from __future__ import annotations

from typing import Any

from concord.apps.inference_errors import TABLE
from concord.apps.uploads import FORM_TYPE, PICTURE_TYPES

Json = dict[str, object]

# Without it FastAPI would say that bodies are checked by it, with its own status.
OTHERWISE: dict[int | str, dict[str, Any]] = {
    "default": {"description": "refused before it was read; `error` says why"}
}

_ROW = [0.0, 0.5, 1.0, 0.25]
_MODEL = {"name": "digits", "version": 12, "round": 300}
_BINARY: Json = {"schema": {"type": "string", "format": "binary"}}
_FORM: Json = {"schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}}


def _body(description: str, example: object, others: Json | None = None) -> Json:
    return {"description": description, "content": {"application/json": {"example": example}, **(others or {})}}


def _problem(description: str, again: bool) -> Json:
    example: Json = {
        "error": "inputs[0].shape: expected [rows, 4] with rows >= 1",
        "field": "inputs[0].shape",
        "expected": "[rows, 4] with rows >= 1",
    }
    retry = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return {**_body(description, example), **({"headers": retry} if again else {})}


def _responses(answer: Json, *statuses: int) -> Json:
    refusals = {str(one.status): _problem(one.when, one.again) for one in TABLE if one.status in statuses}
    return {"200": answer, **dict(sorted(refusals.items()))}


def _operation(request: Json, answer: Json, *statuses: int) -> Json:
    return {"requestBody": request, "responses": _responses(answer, *statuses)}


V2_INFER = _operation(
    {
        "required": True,
        **_body(
            "One tensor named `input`, its data nested or flat; numbers of any datatype are cast to float32. "
            "`outputs` may name what to answer with. With the header `Inference-Header-Content-Length` the body is "
            "that many bytes of JSON and then the data of tensors that have `binary_data_size`.",
            {
                "id": "42",
                "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": _ROW}],
                "outputs": [{"name": "probabilities"}, {"name": "label"}],
            },
            {"application/octet-stream": _BINARY},
        ),
    },
    _body(
        "Answered by one model; `parameters` says from which round of its training.",
        {
            "model_name": "digits",
            "model_version": "12",
            "id": "42",
            "parameters": {"round": 300, "step": 2400},
            "outputs": [
                {"name": "probabilities", "shape": [1, 2], "datatype": "FP32", "data": [0.75, 0.25]},
                {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["0"]},
            ],
        },
        {"application/octet-stream": _BINARY},
    ),
    *(400, 404, 413, 415, 429, 503),
)

V1_PREDICT = _operation(
    {
        "required": True,
        **_body(
            "`inputs` is a list of rows, or one row. Where the task's inputs are pictures: a PNG or JPEG as the body, "
            "or as the one file of a form.",
            {"inputs": [_ROW]},
            {**dict.fromkeys(PICTURE_TYPES, _BINARY), FORM_TYPE: _FORM},
        ),
    },
    _body(
        "One prediction per row, and the model that made them.",
        {
            "predictions": [{"label": "0", "class": 0, "probability": 0.75, "probabilities": [0.75, 0.25]}],
            "model": _MODEL,
        },
    ),
    *(400, 413, 415, 429, 503),
)

V2_INDEX = _operation(
    _body("With `ready` only what answers now.", {"ready": True}),
    _body(
        "The model, by the versions loaded now.",
        [{"name": "digits", "version": "12", "state": "READY", "reason": ""}],
    ),
    *(400, 413),
)

V2_LOAD = _operation(
    _body("Nothing is needed but the admin token; `parameters` are refused.", {}),
    _body("Done.", {}),
    *(400, 404, 413),
)

MODEL_ROUTE: Json = {"responses": _responses(_body("It can answer.", {"name": "digits", "ready": True}), 404, 503)}
