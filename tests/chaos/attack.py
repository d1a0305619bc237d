"""A neighbour that means harm: it has the secret and a name, and pushes updates that are wrong in every way we know."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import torch

from chaos.federation import SECRET, Federation, Site
from chaos.wires import HOST
from concord.errors import ConcordError
from concord.mailbox.redis import RedisMailbox
from concord.sealed import seal, unseal
from concord.settings import Secret
from concord.site.ports import Box, Slot
from concord.transport.http import Busy, Delivered, NeighbourClient, Refusal
from concord.transport.identity import Signer
from concord.wire.messages import Stamp

Parts = dict[str, torch.Tensor]
Fields = dict[str, str]


def _value(number: float) -> Callable[[Parts, Fields], None]:
    def change(parts: Parts, fields: Fields) -> None:
        next(iter(parts.values())).view(-1)[0] = number

    return change


def _absurd(parts: Parts, fields: Fields) -> None:
    for part in parts.values():
        part.mul_(1e9).add_(1e9)


def _shape(parts: Parts, fields: Fields) -> None:
    name = next(iter(parts))
    parts[name] = parts[name][:-1].clone()


def _field(name: str, value: str) -> Callable[[Parts, Fields], None]:
    def change(parts: Parts, fields: Fields) -> None:
        fields[name] = value

    return change


CHANGES: dict[str, Callable[[Parts, Fields], None]] = {
    "nan": _value(float("nan")),
    "infinite": _value(float("inf")),
    "absurd": _absurd,
    "shape": _shape,
    "fingerprint": _field("fingerprint", "0" * 16),
    "federation": _field("federation", "elsewhere"),
    "epoch": _field("epoch", "99"),
    "terms": _field("penalty", "0.123"),
    "sender": _field("sender", "N9"),
}
"""Changed and sealed anew, with a later sequence, so that nothing but the check itself is in the way."""
TRICKS = (*CHANGES, "flipped", "cut", "stranger", "forged")


def corrupted(trick: str, slot: Slot, draw: random.Random) -> bytes:
    """The update with something wrong in it."""
    if trick in CHANGES:
        parts, fields = unseal(slot.blob)
        own = {name: part.clone() for name, part in parts.items()}
        fields = dict(fields) | {"sequence": str(slot.stamp.sequence + 1)}
        CHANGES[trick](own, fields)
        return seal(own, fields)
    blob = bytearray(slot.blob)
    if trick == "flipped":
        blob[draw.randrange(len(blob))] ^= 1 << draw.randrange(8)
    elif trick == "cut":
        del blob[draw.randrange(len(blob)) :]
    return bytes(blob)


def attack(world: Federation, victim: Site, draw: random.Random, tally: Counter[str]) -> None:
    """Push one wrong update to a site. Counts `refused:...`, `accepted:...`, or `unanswered`."""
    sender = draw.choice(world.neighbours(victim.name))
    asyncio.run(_attack(world, world.sites[sender], victim, draw, tally))


async def _attack(world: Federation, source: Site, victim: Site, draw: random.Random, tally: Counter[str]) -> None:
    trick = draw.choice(TRICKS)
    name = "N9" if trick == "stranger" else source.name
    secret = Secret(b"a secret that is not the one") if trick == "forged" else SECRET
    mailbox = RedisMailbox(source.redis.url, world.job.name, source.name)
    client = NeighbourClient(Signer(name, secret), timeout=2.0)
    try:
        slot = await mailbox.read(Box.OUTBOX, victim.name)
        if slot is None:
            return
        blob = corrupted(trick, slot, draw)
        newer = Stamp(slot.stamp.epoch, slot.stamp.incarnation, slot.stamp.sequence + 1)
        answer = await client.push(f"http://{HOST}:{victim.door}", victim.name, Slot(newer, blob))
    except ConcordError:
        tally["unanswered"] += 1  # one of the two is down, stopped, or without its Redis
        return
    finally:
        await client.close()
        await mailbox.close()
    match answer:
        case Delivered():
            tally[f"accepted:{trick}"] += 1
        case Refusal():
            tally[f"refused:{trick}"] += 1
        case Busy():
            tally["unanswered"] += 1
