"""A sealed blob gives back what went in, or says that it was altered."""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize
from torch import Tensor

from concord.errors import SealError
from concord.sealed import HEADER_LIMIT, digest, seal, unseal, view

DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.bool,
]
SEAL_BYTES = 32
Reader = Callable[[bytes], tuple[dict[str, Tensor], dict[str, str]]]
READERS = pytest.mark.parametrize("read", [unseal, view])


def filled(shape: list[int], dtype: torch.dtype) -> Tensor:
    count = int(torch.Size(shape).numel())
    return (torch.arange(count) % 7).to(dtype).reshape(shape)


def reseal(body: bytes) -> bytes:
    """A blob whose digest is right, whatever its body says: what a hostile neighbour would send."""
    return body + hashlib.sha256(body).digest()


def with_header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return reseal(len(text).to_bytes(8, "little") + text + data)


def seal_entry(start: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [SEAL_BYTES], "data_offsets": [start, start + SEAL_BYTES]}


tensors_of_every_kind = st.dictionaries(
    st.text(min_size=1, max_size=6).filter(lambda name: name not in {"~seal", "__metadata__"}),
    st.builds(filled, st.lists(st.integers(0, 4), max_size=3), st.sampled_from(DTYPES)),
    max_size=5,
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(tensors=tensors_of_every_kind, metadata=st.dictionaries(texts, texts, max_size=4))
def test_round_trip(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    for read in (unseal, view):
        got, text = read(seal(tensors, metadata))
        assert text == metadata
        assert got.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert got[name].dtype == tensor.dtype
            assert got[name].shape == tensor.shape
            assert torch.equal(got[name], tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_dimensional_tensor(dtype: torch.dtype) -> None:
    got, _ = unseal(seal({"count": torch.ones((), dtype=dtype)}, {}))
    assert got["count"].shape == ()
    assert got["count"] == 1


@READERS
def test_special_float_bits_survive(read: Reader) -> None:
    values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    got, _ = read(seal({"w": values}, {}))
    assert torch.equal(got["w"].view(torch.int32), values.view(torch.int32))


@READERS
def test_non_contiguous_and_parameter_tensors(read: Reader) -> None:
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    got, _ = read(seal({"w": weight}, {}))
    assert torch.equal(got["w"], weight.detach())
    assert not got["w"].requires_grad


def test_tensors_own_writable_memory() -> None:
    blob = seal({"a": torch.zeros(3), "b": torch.zeros(3)}, {})
    got, _ = unseal(blob)
    got["a"].fill_(7)
    assert torch.equal(got["b"], torch.zeros(3))
    assert torch.equal(unseal(blob)[0]["a"], torch.zeros(3))


def test_equal_content_gives_equal_bytes() -> None:
    a, b = torch.zeros(3), torch.ones(2, dtype=torch.int64)
    assert seal({"a": a, "b": b}, {"x": "1", "y": "2"}) == seal({"b": b, "a": a}, {"y": "2", "x": "1"})


def test_is_a_safetensors_file_that_ends_with_its_seal() -> None:
    tensors = {"~~~": torch.ones(5, dtype=torch.bool), "zz": torch.ones(3, dtype=torch.uint8)}
    blob = seal(tensors, {"k": "v"})
    stored = {name: bytes(fields["data"]) for name, fields in deserialize(blob)}
    assert stored["~seal"] == blob[-SEAL_BYTES:]
    assert stored["~seal"] == hashlib.sha256(blob[:-SEAL_BYTES]).digest()
    assert digest(blob) == stored["~seal"].hex()


def test_data_is_aligned_to_its_own_width() -> None:
    blob = seal({"a": torch.ones(3, dtype=torch.int8), "b": torch.ones(1, dtype=torch.float64)}, {})
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    assert (8 + length) % 8 == 0
    assert header["b"]["data_offsets"] == [0, 8]


def test_reads_from_a_memoryview() -> None:
    got, _ = unseal(memoryview(seal({"w": torch.ones(2)}, {})))
    assert torch.equal(got["w"], torch.ones(2))


@READERS
def test_every_altered_byte_is_noticed(read: Reader) -> None:
    blob = seal({"w": torch.ones(4)}, {"k": "v"})
    for position in range(len(blob)):
        altered = bytearray(blob)
        altered[position] ^= 1 << (position % 8)
        with pytest.raises(SealError):
            read(bytes(altered))


@READERS
def test_every_truncation_and_extension_is_noticed(read: Reader) -> None:
    blob = seal({"w": torch.ones(4)}, {"k": "v"})
    for length in range(len(blob)):
        with pytest.raises(SealError):
            read(blob[:length])
    with pytest.raises(SealError):
        read(blob + b"\0")


def test_size_limit() -> None:
    blob = seal({"w": torch.ones(4)}, {})
    unseal(blob, max_bytes=len(blob))
    with pytest.raises(SealError, match="over the limit"):
        unseal(blob, max_bytes=len(blob) - 1)


@pytest.mark.parametrize("name", ["~seal", "__metadata__"])
def test_reserved_names(name: str) -> None:
    with pytest.raises(SealError, match="reserved"):
        seal({name: torch.ones(1)}, {})


def test_unsupported_dtype() -> None:
    with pytest.raises(SealError, match="complex64"):
        seal({"w": torch.ones(1, dtype=torch.complex64)}, {})


def test_header_limit_when_sealing() -> None:
    with pytest.raises(SealError, match="over the limit"):
        seal({}, {"text": "x" * HEADER_LIMIT})


@pytest.mark.parametrize(
    "blob",
    [
        reseal((1 << 60).to_bytes(8, "little") + bytes(64)),
        reseal((HEADER_LIMIT + 1).to_bytes(8, "little") + bytes(HEADER_LIMIT + 64)),
        with_header([]),
        with_header({}),
        with_header({"__metadata__": {"k": 1}, "~seal": seal_entry(0)}),
        with_header({"~seal": seal_entry(0) | {"dtype": "I8"}}),
        with_header({"~seal": seal_entry(0), "w": seal_entry(SEAL_BYTES)}, bytes(SEAL_BYTES)),
        with_header({"w": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 8]}}, bytes(8)),
        with_header({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}, "~seal": seal_entry(8)}, bytes(8)),
        reseal((4).to_bytes(8, "little") + b"\xff\xfe{}" + bytes(32)),
        reseal((100_000).to_bytes(8, "little") + b"[" * 100_000 + bytes(32)),
    ],
)
@READERS
def test_a_right_digest_over_a_wrong_body_is_refused(read: Reader, blob: bytes) -> None:
    with pytest.raises(SealError):
        read(blob)


NUMBER = st.one_of(st.integers(-2, 40), st.sampled_from([1 << 31, 1 << 62, 1 << 63, 1 << 64]), st.floats(), st.text())


@settings(max_examples=300, deadline=None)
@given(dtype=st.sampled_from(["F32", "U8", "F64", 3]), shape=st.lists(NUMBER, max_size=3), offsets=st.lists(NUMBER))
def test_a_view_never_reaches_beyond_its_blob(dtype: object, shape: list[object], offsets: list[object]) -> None:
    fields = {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}, "~seal": seal_entry(16)}
    blob = with_header(fields, bytes(16))
    try:
        tensors, _ = view(blob)
    except SealError:
        return
    tensor, first = tensors["w"], ctypes.cast(ctypes.c_char_p(blob), ctypes.c_void_p).value or 0
    assert tensor.numel() == 0 or first <= tensor.data_ptr() <= first + len(blob) - tensor.numel() * tensor.itemsize


def test_a_view_lies_in_the_blob_and_keeps_it_alive() -> None:
    values = torch.arange(1e5)
    blob = seal({"w": values}, {})
    first, size = ctypes.cast(ctypes.c_char_p(blob), ctypes.c_void_p).value or 0, len(blob)
    got, _ = view(blob)
    assert first < got["w"].data_ptr() < first + size
    held = sys.getrefcount(blob)
    part = got["w"][7:9]
    del got
    assert sys.getrefcount(blob) == held
    assert part.tolist() == [7.0, 8.0]
    del part
    assert sys.getrefcount(blob) < held
