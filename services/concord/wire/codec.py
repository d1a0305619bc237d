"""Updates to and from checked bytes: the one door through which a neighbour's data reaches a site.

Whatever is wrong with a blob is said as one RefusalReason. Must not know HTTP, Redis or any algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from concord.consensus.algorithm import EdgeTerms, PartLayout, payload_bytes
from concord.errors import RefusalReason, SealError, UpdateRefused
from concord.sealed import seal, unseal
from concord.wire.messages import PROTOCOL, Header, Stamp, Update
from concord.wire.sanity import magnitudes

MAX_COUNTER = 2**53 - 1
"""Largest epoch, incarnation, sequence, step or round: beyond it a mailbox cannot compare stamps exactly."""

_HEADER_ALLOWANCE = 1 << 16
_TERMS_TOLERANCE = 1e-6
_COMPRESSION = "none"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an update over one edge must say to be taken in.

    `layout` says what each part is, to the element; `max_bytes` limits the whole blob.
    """

    federation: str
    fingerprint: str
    algorithm: str
    sender: str
    receiver: str
    epoch: int
    terms: EdgeTerms
    layout: Mapping[str, PartLayout]
    max_bytes: int


def default_max_bytes(layout: Mapping[str, PartLayout]) -> int:
    """The size limit, in bytes, that any honest update with these parts stays under."""
    return payload_bytes(layout) + _HEADER_ALLOWANCE


def encode(update: Update) -> bytes:
    """The update as one sealed blob."""
    header = update.header
    fields = {
        "protocol": str(header.protocol),
        "federation": header.federation,
        "fingerprint": header.fingerprint,
        "sender": header.sender,
        "receiver": header.receiver,
        "epoch": str(header.stamp.epoch),
        "incarnation": str(header.stamp.incarnation),
        "sequence": str(header.stamp.sequence),
        "step": str(header.step),
        "round": str(header.round),
        "algorithm": header.algorithm,
        "penalty": repr(header.penalty),
        "averaging": repr(header.averaging),
        "sent_at": repr(header.sent_at),
        "compression": header.compression,
    }
    return seal(update.parts, fields)


def decode(blob: bytes | memoryview, expected: Expectation) -> Update:
    """The update in a blob, or UpdateRefused with the first thing that is wrong with it.

    Checked in this order: size, seal, protocol, header fields, federation, fingerprint, identity, epoch,
    terms, layout, finiteness.
    """
    return measure(blob, expected)[0]


def measure(blob: bytes | memoryview, expected: Expectation) -> tuple[Update, dict[str, float]]:
    """As `decode`, with the greatest magnitude in each floating-point part, which checking for finiteness tells."""
    parts, fields = _open(blob, expected.max_bytes)
    header = _parse(fields)
    try:
        _check_header(header, expected)
        _check_layout(parts, expected.layout)
        return Update(header, parts), _check_finite(parts)
    except UpdateRefused as refusal:
        refusal.stamp = str(header.stamp)
        raise


def same_terms(header: Header, terms: EdgeTerms) -> bool:
    """Whether the sender of an update holds the edge on the terms that this end holds it on."""
    return _is_close(header.penalty, terms.penalty) and _is_close(header.averaging, terms.averaging)


def read_header(blob: bytes | memoryview, max_bytes: int) -> Header:
    """The header of any whole update, whoever it is for; UpdateRefused if it is not one."""
    return _parse(_open(blob, max_bytes)[1])


def _open(blob: bytes | memoryview, max_bytes: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    if len(blob) > max_bytes:
        raise UpdateRefused(RefusalReason.TOO_LARGE, f"{len(blob)} bytes; at most {max_bytes}")
    try:
        return unseal(blob, max_bytes)
    except SealError as error:
        raise UpdateRefused(RefusalReason.CHECKSUM, str(error)) from error


def _parse(fields: Mapping[str, str]) -> Header:
    # The protocol comes first: another version may have other fields, and that is the thing to say then.
    protocol = _counter(fields, "protocol")
    _require(RefusalReason.PROTOCOL, "protocol", protocol, PROTOCOL)
    header = Header(
        federation=_text(fields, "federation"),
        fingerprint=_text(fields, "fingerprint"),
        sender=_text(fields, "sender"),
        receiver=_text(fields, "receiver"),
        stamp=Stamp(*(_counter(fields, name) for name in ("epoch", "incarnation", "sequence"))),
        step=_counter(fields, "step"),
        round=_counter(fields, "round"),
        algorithm=_text(fields, "algorithm"),
        penalty=_number(fields, "penalty"),
        averaging=_number(fields, "averaging"),
        sent_at=_number(fields, "sent_at"),
        compression=_text(fields, "compression"),
        protocol=protocol,
    )
    _require(RefusalReason.PROTOCOL, "compression", header.compression, _COMPRESSION)
    return header


def _text(fields: Mapping[str, str], name: str) -> str:
    if not fields.get(name):
        raise UpdateRefused(RefusalReason.MALFORMED, f"the header has no {name}")
    return fields[name]


def _counter(fields: Mapping[str, str], name: str) -> int:
    text = _text(fields, name)
    # isdigit alone lets other scripts' digits through; the length bounds what int() is given.
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= MAX_COUNTER):
        raise UpdateRefused(RefusalReason.MALFORMED, f"{name} is {text[:40]!r}; a count up to 2^53 is right")
    return int(text)


def _number(fields: Mapping[str, str], name: str) -> float:
    text = _text(fields, name)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UpdateRefused(RefusalReason.MALFORMED, f"{name} is {text[:40]!r}; a finite number is right")
    return value


def _check_header(header: Header, expected: Expectation) -> None:
    _require(RefusalReason.FEDERATION, "federation", header.federation, expected.federation)
    _require(RefusalReason.FINGERPRINT, "model fingerprint", header.fingerprint, expected.fingerprint)
    _require(RefusalReason.IDENTITY, "sender", header.sender, expected.sender)
    _require(RefusalReason.IDENTITY, "receiver", header.receiver, expected.receiver)
    _require(RefusalReason.EPOCH, "edge epoch", header.stamp.epoch, expected.epoch)
    _require(RefusalReason.TERMS, "algorithm", header.algorithm, expected.algorithm)
    _require_close("penalty", header.penalty, expected.terms.penalty)
    _require_close("averaging", header.averaging, expected.terms.averaging)


def _require(reason: RefusalReason, what: str, got: str | int, right: str | int) -> None:
    if got != right:
        raise UpdateRefused(reason, f"{what} is {str(got)[:80]!r}; {str(right)!r} is right")


def _require_close(what: str, got: float, right: float) -> None:
    if not _is_close(got, right):
        raise UpdateRefused(RefusalReason.TERMS, f"{what} of the edge is {got!r}; this end has {right!r}")


def _is_close(got: float, right: float) -> bool:
    return math.isclose(got, right, rel_tol=_TERMS_TOLERANCE)


def _check_layout(parts: Mapping[str, Tensor], layout: Mapping[str, PartLayout]) -> None:
    if parts.keys() != layout.keys():
        detail = f"parts are {str(sorted(parts))[:200]}; {sorted(layout)} is right"
        raise UpdateRefused(RefusalReason.LAYOUT, detail)
    for name, right in layout.items():
        part = parts[name]
        if not right.fits(part):
            detail = f"part {name!r} is {part.dtype} {list(part.shape)}; {right} is right"
            raise UpdateRefused(RefusalReason.LAYOUT, detail)


def _check_finite(parts: Mapping[str, Tensor]) -> dict[str, float]:
    found = magnitudes(parts)
    for name, size in found.items():
        if math.isinf(size):
            raise UpdateRefused(RefusalReason.NOT_FINITE, f"part {name!r} holds NaN or infinity")
    return found
