"""A site whose every kind of memory matters: momentum, data order, dropout, running averages, own parameters, duals.

Run as a script it is a process to be killed: `python resumed.py FOLDER ALGORITHM ROUNDS` trains, with a checkpoint on
disk after each round, says each round on stdout, and at the end the digest of all it has learned.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from concord.consensus.algorithm import EdgeEnd, LocalStep
from concord.consensus.registry import AlgorithmOptions, build_algorithm, edge_terms
from concord.consensus.vectors import fingerprint
from concord.learning.checkpoint import CheckpointStore
from concord.learning.objectives import LOSSES, METRICS
from concord.learning.samples import Samples
from concord.learning.steps import GradientOptions, Learner
from concord.learning.task import Task
from concord.mailbox.memory import MemoryMailbox
from concord.sealed import seal, unseal
from concord.serving.snapshots import MemoryShelf
from concord.site.actions import Publish
from concord.site.brain import Brain, Identity, Plan
from concord.site.edges import Edge
from concord.site.events import Booted, EdgesChanged, GradientComputed, UpdatesArrived
from concord.site.loop import Facts, Packed, Trainer
from concord.site.own import OwnParameters
from concord.site.post import Post
from concord.wire.messages import Update

STEP = LocalStep(0.05, 3)
NEIGHBOUR = {"N1": "N2", "N2": "N1"}


def _model() -> nn.Module:
    body = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.25), nn.ReLU())
    return nn.Sequential(*body, nn.Linear(8, 3))


TASK = Task("toy", _model, LOSSES["cross_entropy"], {"accuracy": METRICS["accuracy"]})


def _samples(seed: int) -> Samples:
    inputs = torch.randn(50, 4, generator=torch.Generator().manual_seed(seed))
    return Samples(inputs, inputs[:, :3].argmax(dim=1))


class Resumable:
    """One site with one neighbour; `memory` and `remember` are what a checkpoint keeps, through its bytes."""

    def __init__(self, name: str, algorithm: str, rounds: int | None = None) -> None:
        torch.manual_seed(99)  # dropout draws from torch's own generator, as in a process that has just begun
        options = AlgorithmOptions(algorithm, **({"keep": 0.4} if algorithm == "c-ecl" else {}))
        seed = int(name[1:])
        gradients = GradientOptions(batch_size=8, momentum=0.5, weight_decay=1e-3, clip=2.0)
        self.learner = Learner(TASK.new_model(1), TASK, _samples(seed), gradients, seed, local=["4.*"])
        shared, kept = self.learner.flat.shared, self.learner.flat.own
        end = EdgeEnd(STEP, 1)
        edge = Edge(1, edge_terms(options, end, end))
        plan = Plan(local_steps=STEP.steps, rounds=rounds, checkpoint_interval=0.0)
        self.brain = Brain(
            Identity("federation", name, fingerprint(self.learner.module, ["4.*"])),
            plan,
            build_algorithm(options, shared.primal, STEP, shared.layers),
            shared.gradient,
            {NEIGHBOUR[name]: edge},
            OwnParameters(kept.primal, kept.gradient, STEP.rate),
        )
        self.edges = {NEIGHBOUR[name]: edge}

    def step(self, news: Sequence[Update] = ()) -> Sequence[Update]:
        """Absorb, step, and what is sent if the round is over."""
        if news:
            self.brain.handle(UpdatesArrived(0.0, news))
        result = self.learner.compute_gradient()
        actions = self.brain.handle(GradientComputed(0.0, result.loss, result.samples, result.finite))
        return [update for action in actions if isinstance(action, Publish) for update in action.updates]

    def memory(self) -> bytes:
        tensors, memo = self.brain.state()
        learner = {f"learner.{name}": tensor for name, tensor in self.learner.state().items()}
        return seal({**tensors, **learner}, {"brain": memo})

    def remember(self, memory: bytes) -> None:
        tensors, texts = unseal(memory)
        self.brain.load_state(tensors, texts["brain"])
        prefix = "learner."
        self.learner.load_state({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        self.brain.handle(EdgesChanged(0.0, self.edges))
        self.brain.handle(Booted(0.0, self.brain.counters.incarnation + 1))

    def everything(self) -> dict[str, Tensor]:
        """All that was learned or is remembered, the random numbers to come included."""
        return {**self.brain.state()[0], **self.learner.state(), "whole": self.learner.primal.clone()}


def train(folder: Path, algorithm: str, rounds: int) -> Resumable:
    """To the end, from what lies in the folder, with nobody in the network."""
    site = Resumable("N1", algorithm, rounds)
    post = Post("N1", MemoryMailbox(), MemoryShelf())
    facts = Facts("toy", "accuracy", rounds, {})
    store = _Telling(folder)
    Trainer(site.brain, site.learner, post, store, _samples(1), facts, site.edges, lambda: Packed(b"")).train(
        threading.Event()
    )
    return site


class _Telling(CheckpointStore):
    """Says each checkpoint once it is on disk."""

    def save(self, *what: object) -> Path:
        path = super().save(*what)  # type: ignore[arg-type]
        sys.stdout.write(f"{what[0]}\n")
        sys.stdout.flush()
        return path


def digest(site: Resumable) -> str:
    """Equal for equal everything, to the bit."""
    return hashlib.sha256(seal(site.everything(), {})).hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(digest(train(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))) + "\n")
