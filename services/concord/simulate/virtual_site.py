"""One site under virtual time: the brain and the learner of a deployed one, with a mailbox and a disk in memory.

Does what `site.loop` does at a real site, but for reports and snapshots, which change nothing that is learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concord.consensus.vectors import not_finite
from concord.learning.steps import Learner, StepResult
from concord.simulate.faults import Faults
from concord.site.actions import Action, Publish, Rest, RollBack, SaveCheckpoint
from concord.site.brain import Brain
from concord.site.edges import Edge
from concord.site.events import Booted, EdgesChanged, GradientComputed, UpdatesArrived
from concord.site.status import Phase
from concord.wire.messages import Update

_MAX_ROLLBACKS = 10


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    tensors: Mapping[str, Tensor]
    memo: str
    learner: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a step led to: updates to be sent, and seconds to rest before the next step."""

    updates: Sequence[Update] = ()
    rest: float = 0.0


class VirtualSite:
    """`life` counts boots and departures, so that what was planned in an earlier life can be told.

    `weight` scales the site's gradients as at a real site. `row` is where the site's model lies in the tensor of all
    sites' models.
    """

    def __init__(self, brain: Brain, learner: Learner, faults: Faults, weight: float = 1.0, row: int = 0) -> None:
        self.brain = brain
        self.learner = learner
        self.faults = faults
        self.row = row
        self.life = 0
        self.is_up = False
        self.gave_up = False
        """Whether the gradient stayed not finite in spite of going back to checkpoints, which ends a trainer."""
        self._weight = weight
        self._inbox: dict[str, Update] = {}
        self._checkpoint: _Checkpoint | None = None
        self._incarnation = 0

    @property
    def trains(self) -> bool:
        """Whether the site is up and has steps to do."""
        training = self.is_up and not self.gave_up and self.brain.phase is Phase.TRAINING
        return training and self.learner.affords(self.brain.steps_to_go)

    def boot(self, at: float) -> None:
        """Come up as the next incarnation, with what is in memory."""
        if self.faults.crashes and self._checkpoint is None:
            self._save()  # what a real site would build anew
        self._incarnation += 1
        self.life += 1
        self.is_up = True
        self.brain.handle(Booted(at, self._incarnation))

    def restart(self, at: float) -> None:
        """Come up after a crash, from the last checkpoint."""
        if self._checkpoint is not None:
            self.brain.load_state(self._checkpoint.tensors, self._checkpoint.memo)
            with torch.random.fork_rng(devices=[]):  # torch's generator is shared by all virtual sites
                self.learner.load_state(self._checkpoint.learner)
        self.boot(at)

    def go_down(self) -> None:
        """Die, or leave: what is in the mailbox is lost."""
        self.life += 1
        self.is_up = False
        self._inbox.clear()

    def change_edges(self, at: float, edges: Mapping[str, Edge]) -> None:
        """From now on the site has exactly these edges."""
        self.brain.handle(EdgesChanged(at, edges))

    def deliver(self, update: Update) -> None:
        """Put an update into the mailbox, if the site is up and nothing newer is there."""
        sender = update.header.sender
        held = self._inbox.get(sender)
        if self.is_up and (held is None or held.header.stamp < update.header.stamp):
            self._inbox[sender] = update

    def begin_step(self, at: float) -> None:
        """Absorb what is in the mailbox."""
        if self._inbox:
            self.brain.handle(UpdatesArrived(at, list(self._inbox.values())))
            self._inbox.clear()

    def end_step(self, at: float, result: StepResult) -> Reaction:
        """Step along the gradient that lies in the learner's buffer."""
        if self._weight != 1.0:
            self.learner.gradient.mul_(self._weight)
        event = GradientComputed(at, result.loss, result.samples, result.finite)
        return self._perform(self.brain.handle(event))

    def _perform(self, actions: Sequence[Action]) -> Reaction:
        updates: Sequence[Update] = ()
        rest = 0.0
        for action in actions:
            match action:
                case Publish():
                    updates = action.updates
                case Rest():
                    rest = action.seconds
                case SaveCheckpoint():
                    self._save()
                case RollBack():
                    self._roll_back()
                case _:
                    pass  # reports, and snapshots for inference
        return Reaction(updates, rest)

    def _save(self) -> None:
        tensors, memo = self.brain.state()
        if not not_finite(tensors):
            self._checkpoint = _Checkpoint(tensors, memo, self.learner.state())

    def _roll_back(self) -> None:
        if self._checkpoint is None or self.brain.counters.rollbacks >= _MAX_ROLLBACKS:
            self.gave_up = True
            return
        self.learner.load_model(self._checkpoint.learner)
        self.brain.roll_back(self._checkpoint.tensors, self._checkpoint.memo)
