"""Tensors as the raw bytes of the binary tensor data extension: little-endian, row by row, without padding.

Source: the Open Inference Protocol's extension for binary tensors, as Triton and KServe speak it. Knows neither HTTP
nor JSON. Little-endian machines only, which are all that torch is built for.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from concord.errors import InputError
from concord.serving.tensors import Shape, all_finite, place_in

BYTES = "BYTES"
_DTYPES = {
    "BOOL": torch.uint8,  # checked to be 0 or 1 before it is believed
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "FP32": torch.float32,
    "FP64": torch.float64,
}
_LENGTH = 4
"""Bytes before each element of a BYTES tensor, which say how long it is."""


def read_binary(data: memoryview, shape: Shape, datatype: str, field: str) -> Tensor:
    """The values of a tensor of one of the numeric datatypes as float32 of `shape`.

    InputError naming `field` if there are more or fewer bytes than that, and the first value that is not finite in
    float32, or neither true nor false.
    """
    dtype = _DTYPES[datatype]
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise InputError(field, f"{wanted} bytes of {datatype} in the shape {list(shape)}, not {len(data)}")
    # A copy: torch needs memory that it may write to, and that is aligned.
    raw = torch.frombuffer(bytearray(data), dtype=dtype)
    if datatype == "BOOL":
        _check(raw <= 1, shape, field, "0 or 1, a byte each")
    values = raw.to(torch.float32)
    if values.is_floating_point() and not all_finite(values):
        _check(values.isfinite(), shape, field, "a finite number that fits float32")
    return values.view(shape)


def split_elements(data: memoryview, count: int, field: str) -> tuple[memoryview, ...]:
    """The `count` elements of a BYTES tensor; InputError naming `field` if they do not fill `data` exactly."""
    elements: list[memoryview] = []
    start = 0
    while start < len(data) and len(elements) < count:
        stop = start + _LENGTH + int.from_bytes(data[start : start + _LENGTH], "little")
        if stop > len(data):
            break
        elements.append(data[start + _LENGTH : stop])
        start = stop
    if start != len(data) or len(elements) != count:
        raise InputError(field, f"{count} elements, each after its length in {_LENGTH} bytes, little-endian")
    return tuple(elements)


def tensor_bytes(tensor: Tensor) -> bytes:
    """A tensor's values, row by row."""
    values = tensor.contiguous()
    return ctypes.string_at(values.data_ptr(), values.numel() * values.element_size())


def text_bytes(texts: Iterable[str]) -> bytes:
    """Texts as the elements of a BYTES tensor."""
    pieces: list[bytes] = []
    for text in texts:
        encoded = text.encode()
        pieces += (len(encoded).to_bytes(_LENGTH, "little"), encoded)
    return b"".join(pieces)


def _check(fine: Tensor, shape: Shape, field: str, expected: str) -> None:
    if not bool(fine.all()):
        place = cast("int", fine.logical_not().int().argmax().item())
        raise InputError(field + place_in(shape, place), expected)
