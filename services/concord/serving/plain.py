"""The plain prediction format, for a developer with nothing but an HTTP client: rows or a picture in, answers out.

Pure: must not know HTTP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from concord.errors import InputError, MediaTypeError
from concord.serving.bodies import Reply, encode, parse_object
from concord.serving.pictures import Pictures
from concord.serving.predictor import Prediction, ServedModel
from concord.serving.tensors import nested_shape, read_tensor

FIELD = "inputs"


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """One checked request."""

    served: ServedModel
    inputs: Tensor | Pictures
    field: str = FIELD

    def reply(self, prediction: Prediction) -> Reply:
        """A prediction for each row, and the model that made them."""
        model = {"name": self.served.name, "version": prediction.version, "round": prediction.round}
        return Reply(encode({"predictions": _format_rows(prediction), "model": model}))


def read_request(body: bytes, served: ServedModel) -> PlainRequest:
    """`{"inputs": rows}`, or one row with no list around it.

    BodyError if the body is no JSON object, InputError if the inputs do not fit the model.
    """
    return PlainRequest(served, parse_inputs(parse_object(body).get(FIELD), served.input_shape))


def read_picture(file: bytes, served: ServedModel, field: str) -> PlainRequest:
    """A picture in a file, not yet decoded; MediaTypeError if the task has no pictures."""
    if served.picture is None:
        raise MediaTypeError(field, "JSON: the inputs of this task are no pictures")
    return PlainRequest(served, Pictures((file,), served.picture, field), field)


def parse_inputs(data: object, row: tuple[int, ...]) -> Tensor:
    """Rows of the model's input shape `row`, or one such row, as (n, *row) float32; rows may be flat."""
    shape = nested_shape(data)
    flat = (math.prod(row),)
    for form in (row, flat):
        if shape == form:
            return read_tensor(data, form, "FP32", FIELD).view(1, *row)
        if shape[1:] == form and shape[0] > 0:
            return read_tensor(data, shape, "FP32", FIELD).view(shape[0], *row)
    nested = "" if row == flat else f", flat or nested as {list(row)}"
    raise InputError(FIELD, f"a list of rows (or one row), each of {flat[0]} finite numbers{nested}")


def _format_rows(prediction: Prediction) -> list[dict[str, object]]:
    if prediction.probabilities is None:
        return [{"outputs": row} for row in prediction.outputs.tolist()]
    return [
        {"label": label, "class": winner, "probability": row[winner], "probabilities": row}
        for label, winner, row in zip(
            prediction.labels, prediction.winners, prediction.probabilities.tolist(), strict=True
        )
    ]
