"""Compressed edge-consensus learning (C-ECL; Takezawa, Niwa and Yamada, TSIPN 2023): each message tells a part.

Legend: w, g, u_ij, mu, theta, K, E_i as in `ecl`; tau the part of a vector that one message tells; P the projection
that a message's key stands for. Steps are those of ECL; what is compressed is the change that the receiver sees:

    message      P (2 w - u_ij) and the key of P, drawn anew for each message
    on receipt   u_ij <- u_ij + theta P (m_ji - u_ij)
    penalty      eta_ij = 1 / (mu max(E_i, E_j) (K / tau - 1))

The publication draws P from a generator that both ends share and step alike; here the message carries the seed, made
from the receiver's name and the message's number, so that a loss leaves the two ends in step. The published penalty
is of each end by itself; here it is of the edge, as in ECL-ISVR. All messages of an edge are alike, so the first
epoch is compressed too. With tau = 1 it is ECL-ISVR.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from concord.consensus.algorithm import EdgeEnd, EdgeTerms, LocalStep, Message, PartLayout
from concord.consensus.compression import Packing, SenderMemory, packing_of
from concord.consensus.ecl import Ecl, averaging_of
from concord.consensus.options import AlgorithmOptions
from concord.consensus.preconditioner import Preconditioner
from concord.consensus.vectors import Layer


class CEcl(Ecl):
    """ECL whose messages are packed; the anchors are whole."""

    name: ClassVar[str] = "c-ecl"
    fewest_steps: ClassVar[int] = 2

    def __init__(
        self, primal: Tensor, step: LocalStep, packing: Packing, preconditioner: Preconditioner | None = None
    ) -> None:
        super().__init__(primal, step, preconditioner)
        self._packing = packing
        self._layout = packing.layout(primal.dtype)
        self._memories: dict[str, SenderMemory] = {}
        self._drawn: dict[str, int] = {}

    @classmethod
    def build(cls, options: AlgorithmOptions, primal: Tensor, step: LocalStep, layers: Sequence[Layer] = ()) -> Self:
        return cls(primal, step, packing_of(options, primal.numel()), Preconditioner.of(options, primal))

    @classmethod
    def edge_terms(cls, ours: EdgeEnd, theirs: EdgeEnd, options: AlgorithmOptions) -> EdgeTerms:
        kept = 1.0 if options.compression == "none" else options.keep
        drift = max(end.step.rate * (end.step.steps / kept - 1) for end in (ours, theirs))
        penalty = options.penalty_scale / (drift * max(ours.degree, theirs.degree))
        return EdgeTerms(penalty=penalty, averaging=averaging_of(options, usual=1.0))

    def layout(self) -> Mapping[str, PartLayout]:
        return self._layout

    def neighbour_model(self, received: Message, sent: Message | None) -> Tensor | None:
        """None: two messages that tell different parts say nothing together."""
        return None

    def state(self) -> dict[str, Tensor]:
        """That of ECL, and of each edge the number of messages and what is remembered of them."""
        memories = {
            f"{name}/{neighbour}": tensor.clone()
            for neighbour in self._terms
            for name, tensor in _tensors(self._memories[neighbour]).items()
        }
        drawn = {f"drawn/{neighbour}": torch.tensor([self._drawn[neighbour]]) for neighbour in self._terms}
        return {**super().state(), **memories, **drawn}

    def _message(self, neighbour: str) -> dict[str, Tensor]:
        self._drawn[neighbour] += 1
        seed = message_seed(neighbour, self._drawn[neighbour])
        vector = self.primal.mul(2).sub_(self._anchors[neighbour])
        return self._packing.pack(vector, seed, self._memories[neighbour])

    def _take_in(self, neighbour: str, message: Message) -> None:
        self._packing.unpack_onto(self._anchors[neighbour], message, self._terms[neighbour].averaging)

    def _join(self, neighbour: str) -> None:
        super()._join(neighbour)
        self._memories[neighbour] = self._packing.remember(self.primal)
        self._drawn[neighbour] = 0

    def _leave(self, neighbour: str) -> None:
        super()._leave(neighbour)
        del self._memories[neighbour], self._drawn[neighbour]

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        for neighbour, memory in self._memories.items():
            self._drawn[neighbour] = int(state[f"drawn/{neighbour}"])
            for name, tensor in _tensors(memory).items():
                tensor.copy_(state[f"{name}/{neighbour}"])


def message_seed(receiver: str, number: int) -> int:
    """The seed in [0, 2^63) of one message's key: others for each receiver and each message."""
    digest = hashlib.blake2b(f"{number} {receiver}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _tensors(memory: SenderMemory) -> dict[str, Tensor]:
    return {name: tensor for name in ("sent", "rest") if (tensor := getattr(memory, name)) is not None}
