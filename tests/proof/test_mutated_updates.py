"""Updates that something went wrong with are refused, or say exactly what the sound one said. Nothing in between.

Half of the changes are what a line or a disk does: the digest is wrong then. The other half are what a sender that
errs, or means harm, does: the digest is computed anew, so that everything behind it is tried too.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from concord.consensus.algorithm import EdgeTerms, PartLayout
from concord.errors import UpdateRefused
from concord.sealed import seal, unseal
from concord.wire.codec import Expectation, decode, default_max_bytes, encode
from concord.wire.messages import Header, Stamp, Update

COUNT = 20_000 * int(os.environ.get("CONCORD_PROOF", "1"))
LAYOUT = {
    "indices": PartLayout("int32", 4),
    "message": PartLayout("float32", 9),
    "scales": PartLayout("float16", 2),
    "values": PartLayout("int8", 5),
}
PARTS = {
    "indices": torch.arange(4, dtype=torch.int32),
    "message": torch.linspace(-1, 1, 9),
    "scales": torch.tensor([0.5, 2.0], dtype=torch.float16),
    "values": torch.arange(-2, 3, dtype=torch.int8),
}
HEADER = Header("digits", "f00d", "N1", "N2", Stamp(1, 2, 3), 40, 5, "ecl", 0.1, 0.5, 1.7e9)
EXPECTED = Expectation(
    *("digits", "f00d", "ecl", "N1", "N2", 1, EdgeTerms(0.1, 0.5), LAYOUT), max_bytes=default_max_bytes(LAYOUT)
)
SOUND = encode(Update(HEADER, PARTS))
FREE = ("incarnation", "sequence", "step", "round", "sent_at")
"""Header fields that a sender alone knows: another number in them is another sound update."""
BAD_TEXTS = (
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e400",
    "2",
    "9007199254740992",
    "x",
    "N3",
    "٣",
    "0.1000002",
    "\x00",
    "1" * 99,
)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8, torch.bool)

Change = Callable[[random.Random], bytes]


def _sealed_again(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def _flip(blob: bytes, draw: random.Random) -> bytes:
    altered = bytearray(blob)
    for _ in range(draw.choice((1, 1, 2, 8))):
        altered[draw.randrange(len(blob))] ^= 1 << draw.randrange(8)
    return bytes(altered)


def flipped(draw: random.Random) -> bytes:
    return _flip(SOUND, draw)


def flipped_and_sealed_again(draw: random.Random) -> bytes:
    return _sealed_again(_flip(SOUND[:-32], draw))


def cut(draw: random.Random) -> bytes:
    start = draw.choice((0, 0, draw.randrange(len(SOUND))))
    return SOUND[start : draw.randrange(start, len(SOUND) + 1)]


def cut_and_sealed_again(draw: random.Random) -> bytes:
    return _sealed_again(SOUND[: draw.randrange(len(SOUND))])


def longer(draw: random.Random) -> bytes:
    more = draw.randbytes(draw.choice((1, 8, 32, 1 << 17)))
    where = draw.randrange(len(SOUND) + 1)
    return SOUND[:where] + more + SOUND[where:]


def longer_and_sealed_again(draw: random.Random) -> bytes:
    where = draw.randrange(len(SOUND) - 31)
    return _sealed_again(SOUND[:where] + draw.randbytes(draw.choice((1, 8, 32))) + SOUND[where:-32])


def spliced(draw: random.Random) -> bytes:
    """A stretch of the update in another place of it, as when a buffer is used twice."""
    start, where = draw.randrange(len(SOUND) - 40), draw.randrange(len(SOUND) - 40)
    piece = SOUND[start : start + draw.randrange(1, 8)]
    return _sealed_again(SOUND[:where] + piece + SOUND[where + len(piece) : -32])


def other_field(draw: random.Random) -> bytes:
    parts, fields = unseal(SOUND)
    name = draw.choice(sorted(fields))
    action = draw.randrange(4)
    if action == 0:
        del fields[name]
    elif action == 1:
        fields[name] = draw.choice(BAD_TEXTS)
    elif action == 2:
        other = draw.choice(sorted(fields))
        fields[name], fields[other] = fields[other], fields[name]
    else:
        fields[name] += draw.choice((" ", "0", "_1", "\n", ".", "e9"))
    return seal(parts, fields)


def other_part(draw: random.Random) -> bytes:
    parts, fields = unseal(SOUND)
    name = draw.choice(sorted(parts))
    part = parts[name]
    match draw.randrange(7):
        case 0:
            del parts[name]
        case 1:
            parts[name + "!"] = part
        case 2:
            parts[name] = part.to(draw.choice(DTYPES))
        case 3:
            parts[name] = part.reshape(draw.choice(((1, -1), (-1, 1))))
        case 4:
            parts[name] = torch.cat([part, part[:1]]) if draw.random() < 0.5 else part[:-1]
        case 5:
            other = draw.choice(sorted(parts))
            parts[name], parts[other] = parts[other], part
        case _:
            floating = parts[draw.choice(("message", "scales"))]
            floating[draw.randrange(len(floating))] = draw.choice((float("nan"), float("inf"), float("-inf")))
    return seal(parts, fields)


def other_table(draw: random.Random) -> bytes:
    """The table of tensors says something else about the same data."""
    length = int.from_bytes(SOUND[:8], "little")
    table = json.loads(SOUND[8 : 8 + length])
    entry = table[draw.choice([*LAYOUT, "~seal"])]
    match draw.randrange(4):
        case 0:
            entry["shape"] = draw.choice(([], [-1], [0], [3, 3], [1 << 62], [entry["shape"][0] + 1]))
        case 1:
            entry["data_offsets"][draw.randrange(2)] += draw.choice((-8, -1, 1, 4, 1 << 40))
        case 2:
            entry["dtype"] = draw.choice(("F64", "F32", "I32", "U8", "BOOL", "F8_E4M3", "X"))
        case _:
            other = table[draw.choice(list(LAYOUT))]
            entry["data_offsets"], other["data_offsets"] = other["data_offsets"], entry["data_offsets"]
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return _sealed_again(len(text).to_bytes(8, "little") + text + SOUND[8 + length : -32])


def of_another_edge(draw: random.Random) -> bytes:
    changes: tuple[dict[str, object], ...] = (
        {"stamp": Stamp(draw.choice((0, 2, 99)), 2, 3)},
        {"penalty": draw.choice((0.2, 0.10001, -0.1))},
        {"averaging": draw.choice((1.0, 0.49))},
        {"fingerprint": draw.choice(("F00D", "f00", "f00d "))},
        {"federation": "other"},
        {"sender": "N2"},
        {"receiver": "N1"},
        {"algorithm": "gossip"},
        {"protocol": 2},
        {"compression": "zip"},
    )
    return encode(Update(replace(HEADER, **draw.choice(changes)), PARTS))  # type: ignore[arg-type]


CHANGES: tuple[Change, ...] = (
    *(flipped, flipped_and_sealed_again, cut, cut_and_sealed_again, longer, longer_and_sealed_again, spliced),
    *(other_field, other_part, other_table, of_another_edge),
)


def outcome(blob: bytes) -> str:
    """The reason of the refusal, or that the update is sound; anything else fails."""
    try:
        update = decode(blob, EXPECTED)
    except UpdateRefused as refusal:
        return refusal.reason.value
    check_sound(update)
    return "sound"


def check_sound(update: Update) -> None:
    """What came through is of the edge to the letter, and encodes to what says the same."""
    header = update.header
    assert (header.federation, header.fingerprint, header.algorithm) == ("digits", "f00d", "ecl")
    assert (header.sender, header.receiver, header.stamp.epoch) == ("N1", "N2", 1)
    assert header.penalty == pytest.approx(0.1, rel=1e-6)
    assert header.averaging == pytest.approx(0.5, rel=1e-6)
    assert {name: PartLayout.of(part) for name, part in update.parts.items()} == LAYOUT
    assert all(torch.isfinite(part).all() for part in update.parts.values())
    again = decode(encode(update), EXPECTED)
    assert again.header == header
    assert all(torch.equal(again.parts[name], part) for name, part in update.parts.items())


def says_the_same(blob: bytes) -> bool:
    update = decode(blob, EXPECTED)
    return update.header == HEADER and all(torch.equal(update.parts[name], part) for name, part in PARTS.items())


NOT_SEALED = (flipped, cut, longer)
"""Without a new digest nothing but the update itself may come through."""


def test_changed_updates_are_refused_or_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    draw = random.Random(20)
    found: Counter[str] = Counter()
    for number in range(COUNT):
        change = CHANGES[number % len(CHANGES)]
        blob = change(draw)
        try:
            result = outcome(blob)
            if result == "sound" and change in NOT_SEALED:
                assert says_the_same(blob)
        except Exception as error:
            error.add_note(f"{change.__name__} at number {number}: {blob!r}")
            raise
        found[result] += 1
    with capsys.disabled():
        print(f"\n{COUNT} changed updates in {time.perf_counter() - began:.1f} s: {dict(found)} ", end="")
    assert set(found) >= {"checksum", "malformed", "protocol", "federation", "fingerprint", "identity", "epoch"}
    assert set(found) >= {"terms", "layout", "not_finite", "too_large"}
    assert found["sound"] < COUNT / 8


@pytest.mark.parametrize("name", FREE)
def test_another_number_of_the_senders_own_is_another_sound_update(name: str) -> None:
    parts, fields = unseal(SOUND)
    fields[name] = "7"
    assert outcome(seal(parts, fields)) == "sound"
