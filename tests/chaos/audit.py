"""Reads what every site holds in the end, and says what is lost, old or wrong there."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx

from chaos.federation import Federation, Site
from chaos.watch import Watcher, newest_whole
from chaos.wires import HOST
from concord.errors import ConcordError, UpdateRefused
from concord.mailbox.redis import RedisMailbox
from concord.site.edges import NOTE_EDGES, EdgeTable
from concord.site.expectation import expect
from concord.site.ports import Box
from concord.wire.codec import decode


def audit(world: Federation, watcher: Watcher) -> list[str]:
    """Everything that is wrong, one line each; empty if nothing is."""
    found = list(watcher.lost)
    for site in world.sites.values():
        found += _disk(site, watcher)
        if site.present:
            found += asyncio.run(_mailbox(world, site))
    return found


def _disk(site: Site, watcher: Watcher) -> list[str]:
    newest, seen = newest_whole(site), watcher.saved.get(site.name)
    found = []
    if seen is not None and (newest is None or newest < seen):
        found.append(f"{site.name}: checkpoint {seen} was there, the newest whole one is {newest}")
    last = watcher.last(site.name)
    if site.present and last is not None and last.phase == "finished" and newest != last.step:
        found.append(f"{site.name}: finished at step {last.step}, the newest whole checkpoint is {newest}")
    if last is not None and int((site.state_dir / "incarnation").read_text()) < last.incarnation:
        found.append(f"{site.name}: lives its {last.incarnation}th life, and its disk says fewer")
    return found


async def _mailbox(world: Federation, site: Site) -> list[str]:
    mailbox = RedisMailbox(site.redis.url, world.job.name, site.name)
    found = []
    try:
        text = await mailbox.read_note(NOTE_EDGES)
        if text is None:
            return [f"{site.name}: no edge table in its mailbox"]
        table = EdgeTable.from_json(text)
        if set(table.edges) != set(world.neighbours(site.name)):
            found.append(f"{site.name}: has edges to {sorted(table.edges)}")
        for other in table.edges:
            slot = await mailbox.read(Box.INBOX, other)
            if slot is not None:
                try:
                    decode(slot.blob, expect(table, other, site.name))
                except UpdateRefused as refusal:
                    found.append(f"{site.name}: its inbox holds something wrong from {other}: {refusal}")
            if await mailbox.read(Box.OUTBOX, other) is None:
                found.append(f"{site.name}: nothing in its outbox for {other}")
    except ConcordError as error:
        found.append(f"{site.name}: its mailbox cannot be read: {error}")
    finally:
        await mailbox.close()
    return found


def refusals(world: Federation) -> Counter[str]:
    """What the exchanges that run say they refused, by reason, since each began."""
    total: Counter[str] = Counter()
    for site in world.sites.values():
        try:
            status = httpx.get(f"http://{HOST}:{site.door}/v1/status", timeout=2.0).json()["exchange"]
        except (httpx.HTTPError, KeyError, ValueError):
            continue
        for edge in status["edges"].values():
            total.update(edge["refused"])
        total["unproven"] += status["unproven"]
    return total
