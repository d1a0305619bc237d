"""Tensors plus text in one tamper-evident blob: the form of updates, checkpoints and model snapshots.

A sealed blob is a valid safetensors file whose last tensor, `~seal`, holds the SHA-256 digest of every
byte before it: header, padding and data alike, so that any altered or missing byte is noticed before anything
is parsed. Nothing is ever unpickled. This module must not know what the tensors mean.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from safetensors import SafetensorError, deserialize
from torch import Tensor

from concord.errors import SealError

HEADER_LIMIT = 1 << 20
"""Largest header in bytes, written or read; what parsing a hostile header may cost is bounded by it."""

_SEAL = "~seal"
_METADATA = "__metadata__"
_DIGEST_BYTES = 32
_ALIGNMENT = 8
_LENGTH_BYTES = 8
_DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# The library's function carries no types.
_deserialize = cast("Callable[[bytes], list[tuple[str, dict[str, object]]]]", deserialize)
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class _Span:
    """Where one tensor lies: `start` and `stop` count bytes from the end of the header."""

    name: str
    tensor: Tensor
    start: int
    stop: int


def seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Pack tensors of any shape and text into one blob; equal content gives equal bytes.

    dtypes: float16, bfloat16, float32, float64, int8, uint8, int32, int64, bool. SealError for another dtype,
    a reserved name, or a header over HEADER_LIMIT.
    """
    spans = list(_place(tensors))
    pieces: list[bytes | memoryview] = [_header(spans, metadata), *(_bytes_of(span.tensor) for span in spans)]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return b"".join([*pieces, digest.digest()])


def unseal(blob: bytes | memoryview, max_bytes: int | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The inverse of `seal`: tensors that own writable memory, and the text.

    The digest is checked before anything is parsed. SealError if the blob is over `max_bytes`, torn,
    truncated, altered, or not a sealed blob.
    """
    if max_bytes is not None and len(blob) > max_bytes:
        raise SealError(f"a blob of {len(blob)} bytes is over the limit of {max_bytes}")
    _check_digest(blob)
    header_bytes = _header_length(blob)
    blob = bytes(blob)
    try:
        entries = _deserialize(blob)
        header = json.loads(blob[_LENGTH_BYTES : _LENGTH_BYTES + header_bytes])
    except (SafetensorError, ValueError) as error:
        raise SealError(f"the header of the sealed blob is wrong: {error}") from error
    data_bytes = len(blob) - _LENGTH_BYTES - header_bytes
    if header.get(_SEAL) != _entry("U8", (_DIGEST_BYTES,), data_bytes - _DIGEST_BYTES, data_bytes):
        raise SealError("the last tensor of the sealed blob is not its seal")
    tensors = {name: _tensor(name, fields) for name, fields in entries if name != _SEAL}
    return tensors, cast("dict[str, str]", header.get(_METADATA, {}))


def view(blob: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As `unseal`, but the tensors are views of the blob's own memory, which lives as long as one of them.

    Nothing is copied, so nobody may write to them. SealError as `unseal`.
    """
    _check_digest(blob)
    start = _LENGTH_BYTES + _header_length(blob)
    try:
        header = json.loads(blob[_LENGTH_BYTES:start])
        metadata = header.pop(_METADATA, {})
        stretches = {name: _stretch(fields) for name, fields in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SealError(f"the header of the sealed blob is wrong: {error}") from error
    data_bytes = len(blob) - start
    if stretches.pop(_SEAL, None) != _Stretch(torch.uint8, (_DIGEST_BYTES,), data_bytes - _DIGEST_BYTES):
        raise SealError("the last tensor of the sealed blob is not its seal")
    if not all(isinstance(text, str) for text in metadata.values()):
        raise SealError("the text of the sealed blob is not all text")
    memory = _memory_of(blob)
    return {name: _view(memory, one, start, name) for name, one in stretches.items()}, metadata


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What a header says of one tensor; `start` counts bytes from the end of the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def _stretch(fields: Mapping[str, object]) -> _Stretch:
    """ValueError, TypeError or KeyError if the fields are of another form, or contradict each other."""
    start, stop = cast("list[int]", fields["data_offsets"])
    one = _Stretch(_DTYPES[cast(str, fields["dtype"])], tuple(cast("list[int]", fields["shape"])), start)
    if not all(type(number) is int and number >= 0 for number in (*one.shape, start, stop)) or stop != one.stop:
        raise ValueError(f"{fields} is not of one tensor")
    return one


def _memory_of(blob: bytes) -> ctypes.Array[ctypes.c_ubyte]:
    """The blob's bytes where they are; torch would warn, for ever, of a buffer that it cannot write to."""
    array = (ctypes.c_ubyte * len(blob)).from_address(ctypes.cast(ctypes.c_char_p(blob), ctypes.c_void_p).value or 1)
    array.keep = blob  # type: ignore[attr-defined]
    return array


def _view(memory: ctypes.Array[ctypes.c_ubyte], one: _Stretch, offset: int, name: str) -> Tensor:
    if offset + one.stop > len(memory):
        raise SealError(f"tensor {name!r} of the sealed blob reaches beyond its end")
    try:
        if one.stop == one.start:
            return torch.empty(one.shape, dtype=one.dtype)
        count = math.prod(one.shape)
        return torch.frombuffer(memory, dtype=one.dtype, count=count, offset=offset + one.start).view(one.shape)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise SealError(f"tensor {name!r} of the sealed blob cannot be: {error}") from error


def digest(blob: bytes | memoryview) -> str:
    """The digest a sealed blob carries, as 64 hexadecimal digits; `unseal` tells whether it is right."""
    return bytes(blob[-_DIGEST_BYTES:]).hex()


def _place(tensors: Mapping[str, Tensor]) -> Iterator[_Span]:
    # Widest first keeps every tensor aligned to its own width, as other readers of the format like it.
    start = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        if name in (_SEAL, _METADATA):
            raise SealError(f"the tensor name {name!r} is reserved")
        if tensor.dtype not in _CODES:
            raise SealError(f"tensor {name!r} is {tensor.dtype}, which a sealed blob does not hold")
        stop = start + tensor.numel() * tensor.element_size()
        yield _Span(name, tensor, start, stop)
        start = stop


def _header(spans: list[_Span], metadata: Mapping[str, str]) -> bytes:
    # The library's own writer orders bool after uint8, which would put other data behind the seal.
    end = spans[-1].stop if spans else 0
    fields: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))}
    for span in spans:
        code = _CODES[span.tensor.dtype]
        fields[span.name] = _entry(code, tuple(span.tensor.shape), span.start, span.stop)
    fields[_SEAL] = _entry("U8", (_DIGEST_BYTES,), end, end + _DIGEST_BYTES)
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > HEADER_LIMIT:
        raise SealError(f"a header of {len(text)} bytes is over the limit of {HEADER_LIMIT}")
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _entry(code: str, shape: tuple[int, ...], start: int, stop: int) -> dict[str, object]:
    return {"dtype": code, "shape": list(shape), "data_offsets": [start, stop]}


def _bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's elements in row order, without a copy if they lie so already; the view keeps them alive."""
    elements = tensor.detach().contiguous()
    array = (ctypes.c_ubyte * (elements.numel() * elements.element_size())).from_address(elements.data_ptr() or 1)
    array.keep = elements  # type: ignore[attr-defined]
    return memoryview(array).cast("B")


def _check_digest(blob: bytes | memoryview) -> None:
    if len(blob) < _LENGTH_BYTES + _DIGEST_BYTES:
        raise SealError(f"a blob of {len(blob)} bytes is too short to be sealed")
    body = memoryview(blob)[:-_DIGEST_BYTES]
    actual = hashlib.sha256(body).digest()
    if not hmac.compare_digest(actual, bytes(blob[-_DIGEST_BYTES:])):
        raise SealError("the seal does not match: the blob is torn, truncated or altered")


def _header_length(blob: bytes | memoryview) -> int:
    length = int.from_bytes(blob[:_LENGTH_BYTES], "little")
    if length > min(HEADER_LIMIT, len(blob) - _LENGTH_BYTES - _DIGEST_BYTES):
        raise SealError(f"a declared header of {length} bytes does not fit")
    return length


def _tensor(name: str, fields: Mapping[str, object]) -> Tensor:
    dtype = _DTYPES.get(cast(str, fields["dtype"]))
    if dtype is None:
        raise SealError(f"tensor {name!r} has dtype {fields['dtype']}, which a sealed blob does not hold")
    shape, data = cast("list[int]", fields["shape"]), cast(bytearray, fields["data"])
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).view(shape)
