"""How the numbers of a message are written in fewer bytes, and how that joins with which numbers travel.

A format rounds state, not differences, so its error does not pile up: at rest each number received is off by at most
one rounding, or two with error feedback. With a lossy format the fixed point is therefore blurred by about the
rounding (float16 2^-11 of each number, int8 1/254 of the greatest of its chunk), whatever is lost on the way; with the
full format any selection keeps it exactly. Must not know what the numbers mean or how they travel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from concord.consensus.algorithm import Message, PartLayout
from concord.consensus.options import AlgorithmOptions
from concord.consensus.selection import Everything, LowRank, RandomK, Selection, TopK
from concord.errors import JobError, RefusalReason, UpdateRefused
from concord.suggest import unknown

CHUNK = 256
"""Numbers that share one scale in int8."""


class NumberFormat(ABC):
    """How `count` floating point numbers are written."""

    lossy: ClassVar[bool]

    @abstractmethod
    def layout(self, count: int, dtype: torch.dtype) -> dict[str, PartLayout]:
        """The parts that hold `count` numbers of a type."""

    @abstractmethod
    def encode(self, numbers: Tensor) -> dict[str, Tensor]:
        """The parts, new tensors, of numbers (count,)."""

    @abstractmethod
    def decode(self, parts: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The numbers (count,); infinite if the parts say so."""


class Full(NumberFormat):
    """As they are: 4 bytes each, as models are float32."""

    lossy: ClassVar[bool] = False

    def layout(self, count: int, dtype: torch.dtype) -> dict[str, PartLayout]:
        return {"values": PartLayout(str(dtype).removeprefix("torch."), count)}

    def encode(self, numbers: Tensor) -> dict[str, Tensor]:
        return {"values": numbers.clone()}

    def decode(self, parts: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        return parts["values"]


class Float16(NumberFormat):
    """2 bytes each; off by at most 2^-11 of the number, or 2^-25 near zero; held within +-65504."""

    lossy: ClassVar[bool] = True

    def layout(self, count: int, dtype: torch.dtype) -> dict[str, PartLayout]:
        return {"values": PartLayout("float16", count)}

    def encode(self, numbers: Tensor) -> dict[str, Tensor]:
        greatest = torch.finfo(torch.float16).max
        return {"values": numbers.clamp(-greatest, greatest).to(torch.float16)}

    def decode(self, parts: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        return parts["values"].to(dtype)


class Int8(NumberFormat):
    """1 byte each and 4 for each chunk of CHUNK; off by at most 1/254 of the greatest magnitude in the chunk."""

    lossy: ClassVar[bool] = True

    def layout(self, count: int, dtype: torch.dtype) -> dict[str, PartLayout]:
        return {"values": PartLayout("int8", count), "scales": PartLayout("float32", -(-count // CHUNK))}

    def encode(self, numbers: Tensor) -> dict[str, Tensor]:
        chunks = pad(numbers, (0, -numbers.numel() % CHUNK)).view(-1, CHUNK)
        scales = (chunks.abs().amax(1) / 127).to(torch.float32)
        # A chunk of zeros has the scale zero; so has one too small for float32.
        steps = torch.where(scales > 0, scales, 1).to(numbers.dtype).unsqueeze(1)
        values = (chunks / steps).round_().clamp_(-127, 127).to(torch.int8)
        return {"values": values.flatten()[: numbers.numel()], "scales": scales}

    def decode(self, parts: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        values = parts["values"]
        scales = parts["scales"].to(dtype).repeat_interleave(CHUNK)[: values.numel()]
        return values.to(dtype) * scales


@dataclass(slots=True)
class SenderMemory:
    """What one end of an edge remembers of what it sent; each flat like the primal, None where not needed.

    `sent` is what was last sent of each coordinate; `rest` what rounding has left out since, to go along next time
    (error feedback), so that over time the roundings cancel.
    """

    sent: Tensor | None = None
    rest: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Packing:
    """A selection and the format of what it selects."""

    selection: Selection
    form: NumberFormat

    def layout(self, dtype: torch.dtype) -> dict[str, PartLayout]:
        """The parts of one packed vector of a type."""
        return self.form.layout(self.selection.count, dtype) | self.selection.layout()

    def remember(self, start: Tensor) -> SenderMemory:
        """A new edge's memory; `start` (size,) is what the other end holds before anything is sent."""
        return SenderMemory(
            sent=start.clone() if self.selection.by_change else None,
            rest=torch.zeros_like(start) if self.form.lossy else None,
        )

    def pack(self, vector: Tensor, seed: int, memory: SenderMemory) -> dict[str, Tensor]:
        """The parts of a vector (size,), in new tensors; what was sent and left out goes into the memory."""
        selection = self.selection
        key = selection.choose(seed, None if memory.sent is None else vector - memory.sent)
        numbers = selection.project(vector, key)
        if memory.rest is None:
            parts = self.form.encode(numbers)
        else:
            parts = self.form.encode(numbers + selection.project(memory.rest, key))
            numbers -= self.form.decode(parts, vector.dtype)
            selection.add(memory.rest, numbers, key)
        if memory.sent is not None:
            selection.add(memory.sent, selection.project(vector - memory.sent, key), key)
        return parts | key

    def unpack_onto(self, vector: Tensor, parts: Message, weight: float) -> None:
        """Move the vector (size,), in place, by `weight` towards the packed one in what was selected of it.

        UpdateRefused, and no change, if parts of the right layout cannot be.
        """
        self.selection.check(parts)
        numbers = self.form.decode(parts, vector.dtype).to(vector.device)
        if self.form.lossy and not torch.isfinite(numbers).all():
            raise UpdateRefused(RefusalReason.NOT_FINITE, "the scales are too large")
        numbers = (numbers - self.selection.project(vector, parts)).mul_(weight)
        self.selection.add(vector, numbers, parts)


def packing_of(options: AlgorithmOptions, size: int) -> Packing:
    """What the settings ask for, for vectors of `size`; JobError for a name that is not known."""
    if options.compression not in _SELECTIONS:
        raise JobError(unknown("compression", options.compression, _SELECTIONS))
    if options.number_format not in _FORMATS:
        raise JobError(unknown("number format", options.number_format, _FORMATS))
    return Packing(_SELECTIONS[options.compression](size, options.keep), _FORMATS[options.number_format]())


def compression_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the selections, and of the number formats, that a job may give."""
    return tuple(_SELECTIONS), tuple(_FORMATS)


_SELECTIONS: Mapping[str, Callable[[int, float], Selection]] = {
    "none": lambda size, keep: Everything(size),
    "random-k": RandomK,
    "top-k": TopK,
    "low-rank": LowRank,
}
_FORMATS: Mapping[str, Callable[[], NumberFormat]] = {"full": Full, "float16": Float16, "int8": Int8}
