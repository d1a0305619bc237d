"""Updates as a neighbour's trainer would send them, valid and signed, made by the project's own code.

They say that their sender has not begun (round 0), so a trainer takes nothing from them, and each is newer than the one
before, so an exchange checks and stores every one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from concord.apps.trainer import build_brain, build_learner, job_task, member_edges, split_options
from concord.job import load_job
from concord.job.membership import Membership
from concord.sealed import digest
from concord.settings import Secret
from concord.site.actions import Publish
from concord.site.brain import Plan
from concord.site.events import Booted
from concord.transport.identity import INSECURE, Signer
from concord.wire.codec import encode
from concord.wire.messages import Update


@dataclass(frozen=True, slots=True)
class Push:
    """One request: PUT `body` to `target` with these headers."""

    target: str
    body: bytes
    headers: dict[str, str]


def pushes(job_file: Path, sender: str, receiver: str, secret_file: Path | None) -> Iterator[Push]:
    """Updates from `sender` to its neighbour `receiver`, for ever."""
    trust = INSECURE if secret_file is None else Secret.from_file(secret_file)
    signer, target = Signer(sender, trust), f"/v1/inbox/{quote(sender)}"
    update = _greeting(job_file, sender, receiver)
    for sequence in itertools.count(update.header.stamp.sequence):
        stamp = replace(update.header.stamp, sequence=sequence)
        body = encode(Update(replace(update.header, stamp=stamp, sent_at=time.time()), update.parts))
        yield Push(target, body, signer.headers(receiver, "PUT", target, digest(body)))


def _greeting(job_file: Path, sender: str, receiver: str) -> Update:
    job = load_job(job_file, ())
    own, task = job.site(sender), job_task(job)
    edges = member_edges(job, sender, Membership.of(job)) or {}
    if receiver not in edges:
        raise SystemExit(f"{sender} and {receiver} are no neighbours in {job_file}; neighbours are {', '.join(edges)}")
    train = task.site_data(sender, job.site_names, split_options(job)).train
    brain = build_brain(job, own, build_learner(job, task, train, own), Plan(own.local_steps), edges)
    # A life above those of before: an exchange remembers them.
    brain.handle(Booted(0.0, time.time_ns() // 1_000_000))
    (publish,) = [action for action in brain.greet() if isinstance(action, Publish)]
    return next(update for update in publish.updates if update.header.receiver == receiver)
