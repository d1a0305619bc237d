"""What the OpenAPI page says about the prediction routes: request and answer forms with an example each."""

from __future__ import annotations

Json = dict[str, object]

_ROW = [0.0, 0.5, 1.0, 0.25]
_MODEL = {"name": "digits", "version": 12, "round": 300}


def _body(description: str, example: Json) -> Json:
    return {"description": description, "content": {"application/json": {"example": example}}}


def _problem(description: str) -> Json:
    example: Json = {
        "error": "inputs[0].shape: expected [rows, 4] with rows >= 1",
        "field": "inputs[0].shape",
        "expected": "[rows, 4] with rows >= 1",
    }
    return _body(description, example)


def _operation(request: Json, answer: Json, wrong: dict[str, str]) -> Json:
    refusals = {
        **wrong,
        "404": "no such model, or no such version",
        "413": "the body is over the limit",
        "503": "no model yet, or the shelf of models is out of reach; see Retry-After",
    }
    responses = {"200": answer, **{status: _problem(text) for status, text in refusals.items()}}
    return {"requestBody": {"required": True, **request}, "responses": responses}


V2_INFER = _operation(
    request=_body(
        "One tensor named `input`, its data nested or flat; numbers of any datatype are cast to float32. "
        "`outputs` may name what to answer with.",
        {
            "id": "42",
            "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": _ROW}],
            "outputs": [{"name": "probabilities"}, {"name": "label"}],
        },
    ),
    answer=_body(
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
    ),
    wrong={"400": "not JSON, or a field is wrong: which one, and what was expected"},
)

V1_PREDICT = _operation(
    request=_body("`inputs` is a list of rows, or one row.", {"inputs": [_ROW]}),
    answer=_body(
        "One prediction per row, and the model that made them.",
        {
            "predictions": [{"label": "0", "class": 0, "probability": 0.75, "probabilities": [0.75, 0.25]}],
            "model": _MODEL,
        },
    ),
    wrong={"400": "not JSON", "422": "the inputs do not fit the model: what was expected"},
)
