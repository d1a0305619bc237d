"""The trainer's loop: carries out what the brain decides, on a real learner, a real store and a real clock.

It never waits for a network: news is taken from the post if there is any, and left with the post to be carried.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from concord.consensus.vectors import not_finite
from concord.errors import CheckpointError, TaskError
from concord.learning.checkpoint import CheckpointStore
from concord.learning.steps import Learner
from concord.learning.task import Samples
from concord.site.actions import (
    Absorbed,
    Action,
    Announce,
    Evaluate,
    Finish,
    Publish,
    PublishSnapshot,
    ReportStatus,
    Rest,
    RollBack,
    SaveCheckpoint,
)
from concord.site.brain import Brain
from concord.site.counters import TrainerCounters
from concord.site.edges import Edge
from concord.site.events import (
    Booted,
    BudgetSpent,
    EdgesChanged,
    Evaluated,
    GradientComputed,
    NeighboursHeard,
    Reincarnated,
    UpdatesArrived,
)
from concord.site.journey import Journey, Step
from concord.site.ports import Snapshot
from concord.site.post import Post
from concord.site.status import Phase, SiteStatus
from concord.wire.messages import Update

log = logging.getLogger(__name__)

_MEMO = "brain"
_LEARNER = "learner."
_MAX_ROLLBACKS = 10
_IDLE_REPORT = 0.5
"""Seconds between two statuses of a site that has finished, or has not begun."""
_LISTEN = 0.02
"""Seconds between two looks for news while a site waits to begin."""
_LOOKS_PER_REPORT = 25
_FLUSH_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What a status says that does not change while the site runs."""

    task: str
    metric: str
    rounds: int | None
    classes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Packed:
    """A model as a sealed blob, and the metrics of the site's own variant of it, if there is one in the blob."""

    blob: bytes
    personal: Mapping[str, float] = field(default_factory=dict)


class Trainer:
    """One site's training, from boot to the last round, and the reports after it.

    `edges` are the site's as decided now, whatever a checkpoint says; None: it is no member yet, and waits to be one.
    `pack` gives the present model, to be published. `evaluation` is the data the metrics are taken on. `weight` scales
    the site's gradients: how much it counts in the result, 1 being an equal share. In its first life a site waits up to
    `join_timeout` seconds to hear all its neighbours, so as to begin where they are.
    """

    def __init__(
        self,
        brain: Brain,
        learner: Learner,
        post: Post,
        store: CheckpointStore,
        evaluation: Samples,
        facts: Facts,
        edges: Mapping[str, Edge] | None,
        pack: Callable[[], Packed],
        weight: float = 1.0,
        join_timeout: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        journey: Journey | None = None,
    ) -> None:
        self._journey = journey or Journey()
        self._brain = brain
        self._learner = learner
        self._post = post
        self._store = store
        self._evaluation = evaluation
        self._facts = facts
        self._edges = edges
        self._pack = pack
        self._weight = weight
        self._join_timeout = join_timeout
        self._joining = True
        self._followed = edges
        self._went_back_to: int | None = None
        self._saved = False
        """Whether a checkpoint was saved since the last rollback."""
        self.booted = False
        """Whether the newest checkpoint, if there is one, is loaded."""
        self.status = "{}"
        """The newest status, as JSON."""
        self.reported: SiteStatus | None = None
        """The newest status."""
        self.counters = TrainerCounters()
        self.alive_at = clock()
        """When the loop last turned, by its clock."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._started_at = wall_clock()
        self._rate = _Rate()
        self._round_at: float | None = None
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Train; then report until `stop`; leave an empty desk."""
        self.train(stop)
        while not stop.wait(_IDLE_REPORT):
            self._follow()
            self._heed_floor()
            self._report()
        if not self._post.drain(_FLUSH_TIMEOUT):
            log.warning("stopped with updates that the mailbox never took; neighbours keep the ones before")

    def train(self, stop: threading.Event) -> None:
        """Resume from the newest checkpoint, train to the job's end or until `stop`, leave a checkpoint."""
        self._stop = stop
        self._join(new=self._boot())
        while not stop.is_set() and not self.finished:
            self._advance()
        self._settle()
        if not self.finished:
            self._save()

    @property
    def finished(self) -> bool:
        """Whether the job's last round is done."""
        return self._brain.phase is Phase.FINISHED

    def change_edges(self, edges: Mapping[str, Edge] | None) -> None:
        """From now on the site has these edges, or is no member; from any thread, and followed at the next step."""
        self._edges = edges

    def _boot(self) -> bool:
        """Resume from the newest checkpoint; whether there was none."""
        checkpoint = self._store.load_newest()
        if checkpoint is not None:
            self._brain.load_state(checkpoint.tensors, checkpoint.metadata[_MEMO])
            self._learner.load_state(_without_prefix(checkpoint.tensors, _LEARNER))
            self._brain.handle(EdgesChanged(self._clock(), self._followed or {}))
            self.counters.checkpoints.saved_at = checkpoint.path.stat().st_mtime
            log.info("resumed at round %d", self._brain.counters.round)
        incarnation = self._store.next_incarnation(self._brain.counters.incarnation)
        self._perform(self._brain.handle(Booted(self._clock(), incarnation)))
        self.booted = True
        return checkpoint is None

    def _join(self, new: bool) -> None:
        """Wait to be a member; a new one waits to hear all its neighbours too, and begins where they are."""
        new = new or self._followed is None
        self._joining = True
        heard: dict[str, Update] = {}
        greeted: Mapping[str, Edge] = {}
        deadline = math.inf
        for turn in itertools.count():
            self._follow()
            edges = self._followed
            if edges is not None:
                deadline = min(deadline, self._clock() + (self._join_timeout if new else 0.0))
                heard.update((update.header.sender, update) for update in self._post.take())
                if self._clock() >= deadline or edges.keys() <= heard.keys() or self._stop.is_set():
                    break
                if edges != greeted and self._brain.counters.step == 0:
                    greeted = edges
                    self._perform(self._brain.greet())
            if turn % _LOOKS_PER_REPORT == 0:
                self._report()
            if self._stop.wait(_LISTEN):
                break
        self._joining = False
        if heard and not self.finished:
            # One that resumes stands where it stood, with what it remembers of its edges.
            event = NeighboursHeard if new else UpdatesArrived
            self._take_in(event(self._clock(), list(heard.values())))

    def _follow(self) -> None:
        """Take over what was decided of the edges since the last look."""
        self.alive_at = self._clock()
        self.counters.turned_at = self._wall_clock()
        edges = self._edges
        if edges is not self._followed:
            self._followed = edges
            self._perform(self._brain.handle(EdgesChanged(self._clock(), edges or {})))

    def _advance(self) -> None:
        self._follow()
        if self._followed is None:
            self._join(new=True)
            return
        self._heed_floor()
        began = self._clock()
        updates = self._post.take()
        self.counters.mailbox += self._clock() - began
        if updates:
            self._take_in(UpdatesArrived(self._clock(), updates))
        if not self._learner.affords(self._brain.steps_to_go):
            log.info("the privacy budget is spent: no further round")
            self._perform(self._brain.handle(BudgetSpent(self._clock())))
            return
        began, round_before = self._clock(), self._brain.counters.round
        result = self._learner.compute_gradient()
        if self._weight != 1.0:
            self._learner.gradient.mul_(self._weight)
        event = GradientComputed(self._clock(), result.loss, result.samples, result.finite)
        actions = self._brain.handle(event)
        self.counters.steps.observe(self._clock() - began)
        self._perform(actions)
        if self._brain.counters.round != round_before:
            self._end_round()

    def _end_round(self) -> None:
        now = self._clock()
        if self._round_at is not None:
            self.counters.rounds.observe(now - self._round_at)
        self._round_at = now

    def _take_in(self, news: NeighboursHeard | UpdatesArrived) -> None:
        actions = self._brain.handle(news)
        seconds = self._clock() - news.at
        for told in [action for action in actions if isinstance(action, Absorbed)]:
            for header in told.headers:
                self._journey.incoming(Step.ABSORBED, header.sender, header.stamp, seconds)
            for header, refusal in told.refused:
                self._journey.incoming_refused(header.sender, refusal, header.stamp)
        self._perform(actions)

    def _heed_floor(self) -> None:
        """Go on as a later life than any that a neighbour, or the outbox, remembers of this site."""
        if self._post.floor >= self._brain.counters.incarnation:
            incarnation = self._store.next_incarnation(self._post.floor)
            self._learner.mark_incomplete()  # the life that is remembered here is not in this site's own memory
            self._perform(self._brain.handle(Reincarnated(self._clock(), incarnation)))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Publish():
                    began = self._clock()
                    self._post.send(action.updates)
                    self.counters.mailbox += self._clock() - began
                case Evaluate():
                    self._evaluate()
                case ReportStatus():
                    self._report()
                case SaveCheckpoint():
                    self._save()
                case PublishSnapshot():
                    self._publish_snapshot(action.version)
                case Announce():
                    self._post.announce(action.table, self._brain.seen())
                case RollBack():
                    self._roll_back(action.bad_steps)
                case Rest():
                    began = self._clock()
                    self._stop.wait(action.seconds)
                    self.counters.rests += self._clock() - began
                case Finish():
                    log.info("finished after %d rounds", self._brain.counters.round)

    def _evaluate(self) -> None:
        evaluation = self._learner.evaluate(self._evaluation)
        self._brain.handle(Evaluated(self._clock(), evaluation.metrics))
        self.counters.evaluated_at = self._wall_clock()

    def _report(self) -> None:
        now = self._clock()
        progress = self._brain.progress(now)
        if self._joining:
            progress = replace(progress, phase=Phase.JOINING)
        identity = self._brain.identity
        status = SiteStatus(
            site=identity.site,
            federation=identity.federation,
            task=self._facts.task,
            algorithm=self._brain.algorithm.name,
            metric=self._facts.metric,
            rounds=self._facts.rounds,
            classes=self._facts.classes,
            parameters=self._learner.primal.numel(),
            reported_at=self._wall_clock(),
            started_at=self._started_at,
            steps_per_second=self._rate.update(now, progress.step),
            progress=replace(progress, version=max(progress.version, self._post.version)),
            privacy=self._learner.privacy(),
        )
        self.reported = status
        self.status = status.to_json()
        self._post.report(self.status)

    def _save(self) -> None:
        tensors, memo = self._brain.state()
        odd = not_finite(tensors)  # what the learner adds may hold infinities for good reason, such as masks
        tensors.update({_LEARNER + name: tensor for name, tensor in self._learner.state().items()})
        if odd:
            self.counters.checkpoints.failed += 1
            log.error("no new checkpoint, the previous one is kept: %s holds NaN or infinity", ", ".join(odd))
            return
        saved, began = self.counters.checkpoints, self._clock()
        try:
            path = self._store.save(self._brain.counters.step, tensors, {_MEMO: memo})
            size = path.stat().st_size
        except (CheckpointError, OSError) as error:
            saved.failed += 1
            log.error("no new checkpoint, the previous one is kept: %s", error)
        else:
            self._saved = True
            saved.written += 1
            saved.saved_at, saved.seconds, saved.bytes = self._wall_clock(), self._clock() - began, size

    def _settle(self) -> None:
        try:
            self._learner.settle()
        except CheckpointError as error:
            log.error("more counts as spent of the privacy than was: %s", error)

    def _publish_snapshot(self, version: int) -> None:
        progress = self._brain.progress(self._clock())
        packed = self._pack()
        self._post.publish(
            Snapshot(
                version=version,
                round=progress.round,
                step=progress.step,
                fingerprint=self._brain.identity.fingerprint,
                metrics=progress.metrics,
                created_at=self._wall_clock(),
                blob=packed.blob,
                lineage=self._brain.lineage(),
                personal=packed.personal,
            )
        )

    def _roll_back(self, bad_steps: int) -> None:
        # One that led here again without another being saved was bad already, if finite: then the one before it.
        checkpoint = self._store.load_newest(before=None if self._saved else self._went_back_to)
        if checkpoint is None or self._brain.counters.rollbacks >= _MAX_ROLLBACKS:
            raise TaskError(
                f"training.learning_rate: the last {bad_steps} steps had no finite gradient and going back to a "
                "checkpoint does not help; a smaller learning rate or training.clip would"
            )
        log.error("no finite gradient in %d steps: back to the last good checkpoint", bad_steps)
        self._learner.load_model(_without_prefix(checkpoint.tensors, _LEARNER))
        self._perform(self._brain.roll_back(checkpoint.tensors, checkpoint.metadata[_MEMO]))
        self._went_back_to, self._saved = checkpoint.number, False


class _Rate:
    """Local steps per second between two reports."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._step = 0

    def update(self, at: float, step: int) -> float:
        before, self._at = self._at, at
        done, self._step = step - self._step, step
        return done / (at - before) if before is not None and at > before else 0.0


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
