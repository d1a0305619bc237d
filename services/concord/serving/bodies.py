"""What every prediction format shares: JSON bodies in and out, and a prediction that JSON can carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from concord.errors import BodyError, InputError
from concord.serving.predictor import Prediction, ServedModel
from concord.serving.tensors import all_finite

Fields = Mapping[str, object]

_ENCODE = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Reply:
    """The body of an answer, and how many rows it answers."""

    body: bytes
    rows: int


def parse_object(body: bytes) -> Fields:
    """The JSON object in a request body; BodyError for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BodyError("body", f"JSON ({error})") from None
    if not isinstance(value, dict):
        raise BodyError("body", "a JSON object")
    return value


def encode(fields: Fields) -> bytes:
    """Compact JSON; every number must be finite."""
    return _ENCODE(fields).encode("ascii")


def predict(served: ServedModel, inputs: Tensor, field: str) -> Prediction:
    """A prediction of finite numbers; InputError for `field` if the inputs drive the model beyond float32."""
    prediction = served.predict(inputs)
    if not all_finite(prediction.outputs):
        raise InputError(field, "values small enough for the model's outputs to be finite")
    return prediction
