"""The outputs of an answer of the Open Inference Protocol, each as JSON or as binary data. Must not know requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from concord.serving.binary import BYTES, tensor_bytes, text_bytes
from concord.serving.predictor import Prediction, ServedModel

OUTPUT = "output"
PROBABILITIES = "probabilities"
LABEL = "label"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output that was asked for: `binary` or as JSON; with `top`, that many of the likeliest classes instead."""

    name: str
    binary: bool = False
    top: int | None = None


def output_names(served: ServedModel) -> tuple[str, ...]:
    """What a model can answer with: a classifier adds probabilities and a label to its raw outputs."""
    return (OUTPUT, PROBABILITIES, LABEL) if served.classes else (OUTPUT,)


def write_output(wanted: Wanted, prediction: Prediction, served: ServedModel, binary: list[bytes]) -> dict[str, object]:
    """The fields of one output; binary data is added to `binary`. Floats in JSON are exact."""
    if wanted.name == LABEL:
        return _texts(wanted, prediction.labels, (len(prediction.labels),), binary)
    values = prediction.outputs if wanted.name == OUTPUT else cast("Tensor", prediction.probabilities)
    if wanted.top is not None:
        return _texts(wanted, tuple(_ranked(values, wanted.top, served.classes)), (len(values), wanted.top), binary)
    fields: dict[str, object] = {"name": wanted.name, "shape": list(values.shape), "datatype": "FP32"}
    if wanted.binary:
        return _with_binary(fields, tensor_bytes(values), binary)
    return {**fields, "data": values.flatten().tolist()}


def _texts(wanted: Wanted, texts: Sequence[str], shape: tuple[int, ...], binary: list[bytes]) -> dict[str, object]:
    fields: dict[str, object] = {"name": wanted.name, "shape": list(shape), "datatype": BYTES}
    if wanted.binary:
        return _with_binary(fields, text_bytes(texts), binary)
    return {**fields, "data": list(texts)}


def _with_binary(fields: dict[str, object], data: bytes, binary: list[bytes]) -> dict[str, object]:
    binary.append(data)
    return {**fields, "parameters": {"binary_data_size": len(data)}}


def _ranked(values: Tensor, top: int, classes: Sequence[str]) -> Iterator[str]:
    best, indices = values.topk(top, dim=-1)
    for row, places in zip(best.tolist(), indices.tolist(), strict=True):
        for value, place in zip(row, places, strict=True):
            yield f"{value:f}:{place}:{classes[place]}"
