"""Updates survive the wire exactly, or are refused with the reason."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from concord.consensus.algorithm import EdgeTerms, PartLayout
from concord.errors import RefusalReason, UpdateRefused
from concord.sealed import seal, unseal
from concord.wire.codec import MAX_COUNTER, Expectation, decode, default_max_bytes, encode, read_header
from concord.wire.messages import Header, Stamp, Update

LAYOUT = {"message": PartLayout("float32", 3)}
HEADER = Header(
    federation="digits",
    fingerprint="f00d",
    sender="N1",
    receiver="N2",
    stamp=Stamp(1, 2, 3),
    step=40,
    round=5,
    algorithm="ecl",
    penalty=0.1,
    averaging=0.5,
    sent_at=1.7e9,
)
EXPECTED = Expectation(
    federation="digits",
    fingerprint="f00d",
    algorithm="ecl",
    sender="N1",
    receiver="N2",
    epoch=1,
    terms=EdgeTerms(penalty=0.1, averaging=0.5),
    layout=LAYOUT,
    max_bytes=default_max_bytes(LAYOUT),
)
UPDATE = Update(HEADER, {"message": torch.tensor([1.0, -2.5, 3e-30])})


def refusal(blob: bytes, expected: Expectation = EXPECTED) -> RefusalReason:
    with pytest.raises(UpdateRefused) as caught:
        decode(blob, expected)
    return caught.value.reason


def with_fields(**fields: str | None) -> bytes:
    """The sample update with header fields replaced, or left out if None."""
    tensors, metadata = unseal(encode(UPDATE))
    changed = {name: text for name, text in (metadata | fields).items() if text is not None}
    return seal(tensors, changed)


counters = st.integers(0, MAX_COUNTER)
finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
headers = st.builds(
    Header,
    federation=names,
    fingerprint=names,
    sender=names,
    receiver=names,
    stamp=st.builds(Stamp, counters, counters, counters),
    step=counters,
    round=counters,
    algorithm=names,
    penalty=finite,
    averaging=finite,
    sent_at=finite,
)
parts = st.dictionaries(
    names.filter(lambda name: name not in {"~seal", "__metadata__"}),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5).map(
        lambda values: torch.tensor(values, dtype=torch.float32)
    ),
    max_size=3,
)


@settings(max_examples=80, deadline=None)
@given(header=headers, tensors=parts)
def test_round_trip(header: Header, tensors: dict[str, torch.Tensor]) -> None:
    layout = {name: PartLayout.of(tensor) for name, tensor in tensors.items()}
    expected = Expectation(
        federation=header.federation,
        fingerprint=header.fingerprint,
        algorithm=header.algorithm,
        sender=header.sender,
        receiver=header.receiver,
        epoch=header.stamp.epoch,
        terms=EdgeTerms(header.penalty, header.averaging),
        layout=layout,
        max_bytes=default_max_bytes(layout),
    )
    blob = encode(Update(header, tensors))
    got = decode(blob, expected)
    assert got.header == header
    assert got.parts.keys() == tensors.keys()
    assert all(torch.equal(got.parts[name], tensors[name]) for name in tensors)
    assert read_header(blob, expected.max_bytes) == header


def test_reads_from_a_memoryview() -> None:
    assert decode(memoryview(encode(UPDATE)), EXPECTED).header == HEADER


def test_every_value_of_every_byte_is_guarded() -> None:
    blob = encode(UPDATE)
    altered = bytearray(blob)
    accepted = []
    for position, right in enumerate(blob):
        for wrong in range(256):
            altered[position] = wrong
            if wrong != right and not _is_refused(bytes(altered), RefusalReason.CHECKSUM):
                accepted.append((position, wrong))
        altered[position] = right
    assert accepted == []


def test_every_truncation_is_refused() -> None:
    blob = encode(UPDATE)
    assert all(_is_refused(blob[:length], RefusalReason.CHECKSUM) for length in range(len(blob)))


def test_every_byte_of_a_large_update_is_guarded() -> None:
    layout = {"message": PartLayout("float32", 1000)}
    expected = replace(EXPECTED, layout=layout, max_bytes=default_max_bytes(layout))
    blob = encode(Update(HEADER, {"message": torch.linspace(-1, 1, 1000)}))
    altered = bytearray(blob)
    for position, right in enumerate(blob):
        for wrong in (right ^ 1, right ^ 0x80, 0xFF - right):
            altered[position] = wrong
            assert _is_refused(bytes(altered), RefusalReason.CHECKSUM, expected)
        altered[position] = right


def _is_refused(blob: bytes, reason: RefusalReason, expected: Expectation = EXPECTED) -> bool:
    # Hundreds of thousands of calls: pytest.raises would take most of the time.
    try:
        decode(blob, expected)
    except UpdateRefused as refused:
        return refused.reason is reason
    return False


@pytest.mark.parametrize("declared", [2**60, 2**63, 2**64 - 1, 2**31, 1 << 24])
@pytest.mark.parametrize("sealed_again", [False, True])
def test_an_absurd_declared_size_allocates_nothing(declared: int, sealed_again: bool) -> None:
    blob = declared.to_bytes(8, "little") + encode(UPDATE)[8:]
    if sealed_again:
        blob = _reseal(blob[:-32])
    tracemalloc.start()
    try:
        assert refusal(blob) is RefusalReason.CHECKSUM
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < EXPECTED.max_bytes


def _reseal(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def test_a_claimed_shape_beyond_the_data_is_refused() -> None:
    body = encode(UPDATE)[:-32].replace(b'"shape":[3]', b'"shape":[9]')
    assert refusal(_reseal(body)) is RefusalReason.CHECKSUM


def test_size_limit_comes_before_everything() -> None:
    assert refusal(b"x" * 101, replace(EXPECTED, max_bytes=100)) is RefusalReason.TOO_LARGE
    with pytest.raises(UpdateRefused, match="too_large"):
        read_header(b"x" * 101, 100)


def test_the_default_limit_lets_the_update_through() -> None:
    assert len(encode(UPDATE)) <= default_max_bytes(LAYOUT)


FIELDS = sorted(unseal(encode(UPDATE))[1])
COUNTERS = ["epoch", "incarnation", "sequence", "step", "round", "protocol"]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_needed(name: str) -> None:
    assert refusal(with_fields(**{name: None})) is RefusalReason.MALFORMED
    assert refusal(with_fields(**{name: ""})) is RefusalReason.MALFORMED


@pytest.mark.parametrize("name", COUNTERS)
@pytest.mark.parametrize("text", ["-1", "1.0", "x", "٣", "1_0", " 1", str(MAX_COUNTER + 1), "9" * 5000])
def test_counters_are_whole_numbers(name: str, text: str) -> None:
    assert refusal(with_fields(**{name: text})) is RefusalReason.MALFORMED


@pytest.mark.parametrize("name", ["penalty", "averaging", "sent_at"])
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "x"])
def test_numbers_are_finite(name: str, text: str) -> None:
    assert refusal(with_fields(**{name: text})) is RefusalReason.MALFORMED


def test_another_protocol_is_named_even_if_its_fields_differ() -> None:
    assert refusal(with_fields(protocol="2", sender=None)) is RefusalReason.PROTOCOL


def test_unknown_compression_is_refused() -> None:
    assert refusal(with_fields(compression="zip")) is RefusalReason.PROTOCOL


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"federation": "other"}, RefusalReason.FEDERATION),
        ({"fingerprint": "beef"}, RefusalReason.FINGERPRINT),
        ({"sender": "N3"}, RefusalReason.IDENTITY),
        ({"receiver": "N3"}, RefusalReason.IDENTITY),
        ({"stamp": Stamp(2, 2, 3)}, RefusalReason.EPOCH),
        ({"stamp": Stamp(0, 2, 3)}, RefusalReason.EPOCH),
        ({"algorithm": "gossip"}, RefusalReason.TERMS),
        ({"penalty": 0.1000002}, RefusalReason.TERMS),
        ({"averaging": 1.0}, RefusalReason.TERMS),
    ],
)
def test_header_must_match_the_edge(change: dict[str, Any], reason: RefusalReason) -> None:
    update = Update(replace(HEADER, **change), UPDATE.parts)
    assert refusal(encode(update)) is reason


def test_penalties_may_differ_by_rounding() -> None:
    update = Update(replace(HEADER, penalty=0.10000005), UPDATE.parts)
    assert decode(encode(update), EXPECTED).header.penalty == 0.10000005


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"other": torch.zeros(3)},
        {"message": torch.zeros(3), "other": torch.zeros(3)},
        {"message": torch.zeros(2)},
        {"message": torch.zeros(4)},
        {"message": torch.zeros(1, 3)},
        {"message": torch.zeros(3, dtype=torch.float64)},
        {"message": torch.zeros(3, dtype=torch.int32)},
    ],
    ids=str,
)
def test_layout_must_match_the_model(wrong: dict[str, torch.Tensor]) -> None:
    assert refusal(encode(Update(HEADER, wrong))) is RefusalReason.LAYOUT


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_values_must_be_finite(bad: float, position: int) -> None:
    values = torch.zeros(3)
    values[position] = bad
    assert refusal(encode(Update(HEADER, {"message": values}))) is RefusalReason.NOT_FINITE


def test_first_wrong_thing_in_order_is_named() -> None:
    """Everything is wrong at once; putting right one thing after the other names the next."""
    wrong = replace(
        HEADER,
        federation="x",
        fingerprint="x",
        sender="x",
        stamp=Stamp(9, 1, 1),
        algorithm="x",
    )
    values = {"message": torch.tensor([float("nan"), 0.0])}
    found = []
    for repair in ("federation", "fingerprint", "sender", "stamp", "algorithm"):
        found.append(refusal(encode(Update(wrong, values))))
        wrong = replace(wrong, **{repair: getattr(HEADER, repair)})
    found.append(refusal(encode(Update(wrong, values))))
    values = {"message": torch.tensor([float("nan"), 0.0, 0.0])}
    found.append(refusal(encode(Update(wrong, values))))
    assert found == [
        RefusalReason.FEDERATION,
        RefusalReason.FINGERPRINT,
        RefusalReason.IDENTITY,
        RefusalReason.EPOCH,
        RefusalReason.TERMS,
        RefusalReason.LAYOUT,
        RefusalReason.NOT_FINITE,
    ]


COMPRESSED = {
    "values": PartLayout("int8", 4),
    "scales": PartLayout("float32", 1),
    "halves": PartLayout("float16", 2),
    "indices": PartLayout("int32", 2),
    "mask": PartLayout("int64", 1),
}


def compressed_like(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    tensors = {name: torch.ones(part.length, dtype=getattr(torch, part.dtype)) for name, part in COMPRESSED.items()}
    return tensors | changes


def test_parts_may_be_of_any_type_that_the_layout_says() -> None:
    expected = replace(EXPECTED, layout=COMPRESSED, max_bytes=default_max_bytes(COMPRESSED))
    parts = compressed_like(values=torch.tensor([-128, 0, 1, 127], dtype=torch.int8))
    got = decode(encode(Update(HEADER, parts)), expected)
    assert all(
        torch.equal(got.parts[name], part) and got.parts[name].dtype == part.dtype for name, part in parts.items()
    )
    assert default_max_bytes(COMPRESSED) - default_max_bytes({}) == 4 + 4 + 2 * 2 + 2 * 4 + 8


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"values": torch.ones(4)}, RefusalReason.LAYOUT),
        ({"values": torch.ones(4, dtype=torch.uint8)}, RefusalReason.LAYOUT),
        ({"values": torch.ones(3, dtype=torch.int8)}, RefusalReason.LAYOUT),
        ({"values": torch.ones(4, dtype=torch.bool)}, RefusalReason.LAYOUT),
        ({"indices": torch.ones(2, dtype=torch.int64)}, RefusalReason.LAYOUT),
        ({"indices": torch.ones(2, 1, dtype=torch.int32)}, RefusalReason.LAYOUT),
        ({"halves": torch.ones(2, dtype=torch.bfloat16)}, RefusalReason.LAYOUT),
        ({"halves": torch.tensor([1.0, torch.inf], dtype=torch.float16)}, RefusalReason.NOT_FINITE),
        ({"scales": torch.tensor([torch.nan])}, RefusalReason.NOT_FINITE),
    ],
    ids=str,
)
def test_compressed_parts_are_checked_like_others(changes: dict[str, torch.Tensor], reason: RefusalReason) -> None:
    expected = replace(EXPECTED, layout=COMPRESSED, max_bytes=default_max_bytes(COMPRESSED))
    assert refusal(encode(Update(HEADER, compressed_like(**changes))), expected) is reason
