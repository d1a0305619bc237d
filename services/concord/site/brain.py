"""One site's decisions: events in, actions out. Knows no I/O, no clock, no thread; the events carry the time.

The order within a round is what keeps asynchronous consensus exact: absorb, then step, then compute the outgoing
updates from that very step, then publish. A silent neighbour's edge stays: its last anchor is its memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from concord.consensus.algorithm import Algorithm
from concord.errors import CheckpointError, UpdateRefused
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
from concord.site.edges import Edge, EdgeTable
from concord.site.events import (
    Booted,
    BudgetSpent,
    EdgesChanged,
    Evaluated,
    Event,
    GradientComputed,
    NeighboursHeard,
    Reincarnated,
    UpdatesArrived,
)
from concord.site.ledger import Counters, EdgeMemory, Timer
from concord.site.own import OwnParameters
from concord.site.ports import Heard, Lineage
from concord.site.status import Phase, Progress
from concord.wire.codec import same_terms
from concord.wire.messages import Header, Stamp, Update


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the site is: its federation, its own name, and the fingerprint of its model."""

    federation: str
    site: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Plan:
    """When to do what. Intervals are in seconds and are looked at when a round ends.

    `rounds` and `seconds` end the job, whichever comes first (None: never). A round lasts at least `pace`: a site
    whose steps take less rests for what is left, so that each round has its exchange. `max_bad_steps` is how many
    steps in a row may lack a finite gradient before the site rolls back. Where no status is ever due, an infinite
    interval, distances to neighbours are not computed.
    """

    local_steps: int
    rounds: int | None = None
    seconds: float | None = None
    pace: float = 0.0
    evaluate_interval: float = 1.0
    checkpoint_interval: float = 5.0
    snapshot_interval: float = 1.0
    status_interval: float = 0.25
    max_bad_steps: int = 20


class Brain:
    """Drives one algorithm over one site's edges, and beside it the site's `own` parameters, which are never sent.

    `gradient` is the flat buffer, like the algorithm's primal, that holds the newest gradient when `GradientComputed`
    arrives.
    """

    def __init__(
        self,
        identity: Identity,
        plan: Plan,
        algorithm: Algorithm,
        gradient: Tensor,
        edges: Mapping[str, Edge],
        own: OwnParameters | None = None,
    ) -> None:
        self.identity = identity
        self.plan = plan
        self.algorithm = algorithm
        self.phase = Phase.TRAINING
        self.counters = Counters()
        self.metrics: Mapping[str, float] = {}
        self.loss: float | None = None
        self.refused = 0
        """Updates of the right layout whose content could not be."""
        self._gradient = gradient
        self._own = own
        self._edges: dict[str, EdgeMemory] = {}
        self._spoken = 0
        """The highest sequence number of this life, over whichever edge."""
        self._bad_in_a_row = 0
        self._booted_at = 0.0
        self._round_began = 0.0
        self._elapsed_before = 0.0
        self._evaluate = Timer(plan.evaluate_interval)
        self._checkpoint = Timer(plan.checkpoint_interval)
        self._snapshot = Timer(plan.snapshot_interval)
        self._status = Timer(plan.status_interval)
        for neighbour, edge in edges.items():
            self._keep(neighbour, EdgeMemory(edge))

    def handle(self, event: Event) -> list[Action]:
        """Take in one event; the actions are to be carried out in order."""
        match event:
            case GradientComputed():
                return self._stepped(event)
            case BudgetSpent():
                return self._finish()
            case UpdatesArrived():
                return self._absorb(event)
            case Evaluated():
                self.metrics = event.metrics
                return []
            case Booted():
                return self._boot(event)
            case Reincarnated():
                return self._begin_life(event.incarnation)
            case EdgesChanged():
                return self._change_edges(event)
            case NeighboursHeard():
                return self._start_among(event)

    # --- one step, one round ---------------------------------------------------------------------------------

    def _stepped(self, event: GradientComputed) -> list[Action]:
        if not event.finite:
            return self._bad_step()
        self._bad_in_a_row = 0
        self.algorithm.local_step(self._gradient)
        if self._own is not None:
            self._own.step()
        counters = self.counters
        counters.step += 1
        counters.samples += event.samples
        self.loss = event.loss
        if counters.step % self.plan.local_steps:
            return []
        counters.round += 1
        counters.elapsed = self._elapsed_before + event.at - self._booted_at
        return self._last_round() if self._is_done() else self._end_round(event.at)

    def _bad_step(self) -> list[Action]:
        self.counters.bad_steps += 1
        self._bad_in_a_row += 1
        if self._bad_in_a_row < self.plan.max_bad_steps:
            return []
        return [RollBack(self._bad_in_a_row)]

    def _is_done(self) -> bool:
        plan, counters = self.plan, self.counters
        return (plan.rounds is not None and counters.round >= plan.rounds) or (
            plan.seconds is not None and counters.elapsed >= plan.seconds
        )

    def _end_round(self, at: float) -> list[Action]:
        actions: list[Action] = []
        if self.algorithm.parts:
            actions.append(self._publish())
        snapshot = self._snapshot.due(at)
        if self._evaluate.due(at) or snapshot:
            actions.append(Evaluate())
        if snapshot:
            actions.append(self._next_snapshot())
        if self._checkpoint.due(at):
            actions.append(SaveCheckpoint())
        if self._status.due(at):
            actions.append(ReportStatus())
        rest = self._round_began + self.plan.pace - at
        self._round_began = at + max(0.0, rest)
        return [*actions, Rest(rest)] if rest > 0 else actions

    def _last_round(self) -> list[Action]:
        publish: list[Action] = [self._publish()] if self.algorithm.parts else []
        return [*publish, *self._finish()]

    def _finish(self) -> list[Action]:
        self.phase = Phase.FINISHED
        return [Evaluate(), self._next_snapshot(), SaveCheckpoint(), ReportStatus(), Finish()]

    def _next_snapshot(self) -> PublishSnapshot:
        self.counters.version += 1
        return PublishSnapshot(self.counters.version)

    def _publish(self) -> Publish:
        return Publish(self._outgoing_to(self._edges))

    def _outgoing_to(self, neighbours: Iterable[str]) -> list[Update]:
        return [self._outgoing(neighbour, self._edges[neighbour]) for neighbour in neighbours]

    def _outgoing(self, neighbour: str, memory: EdgeMemory) -> Update:
        parts = self.algorithm.outgoing(neighbour)
        memory.sequence += 1
        self._spoken = max(self._spoken, memory.sequence)
        memory.sent += 1
        memory.last_sent = parts
        header = Header(
            federation=self.identity.federation,
            fingerprint=self.identity.fingerprint,
            sender=self.identity.site,
            receiver=neighbour,
            stamp=Stamp(memory.edge.epoch, self.counters.incarnation, memory.sequence),
            step=self.counters.step,
            round=self.counters.round,
            algorithm=self.algorithm.name,
            penalty=memory.edge.terms.penalty,
            averaging=memory.edge.terms.averaging,
            sent_at=0.0,
        )
        return Update(header, parts)

    # --- news from neighbours --------------------------------------------------------------------------------

    def _absorb(self, event: UpdatesArrived) -> list[Action]:
        absorbed: list[Header] = []
        refused: list[tuple[Header, UpdateRefused]] = []
        for update in event.updates:
            memory = self._edges.get(update.header.sender)
            stamp = update.header.stamp
            if memory is None or stamp.epoch != memory.edge.epoch or not same_terms(update.header, memory.edge.terms):
                continue  # decided anew while it lay in the post
            if memory.seen is not None and stamp <= memory.seen:
                continue
            memory.seen = stamp
            if update.header.round == 0 and self.counters.round > 0:
                continue  # the greeting of a site that has not begun would pull back those that have
            distance = self._distance(memory, update)
            try:
                self.algorithm.absorb(update.header.sender, update.parts)
            except UpdateRefused as refusal:
                self.refused += 1
                refused.append((update.header, refusal))
                continue
            absorbed.append(update.header)
            memory.distance = distance
            memory.received += 1
            memory.neighbour_round = update.header.round
            memory.absorbed_round = self.counters.round
            memory.absorbed_at = event.at
        return [Absorbed(absorbed, refused)] if absorbed or refused else []

    def _distance(self, memory: EdgeMemory, update: Update) -> float | None:
        """|w_i - w_j| / |w_i|, with the neighbour's model read off the two newest messages of the edge."""
        if math.isinf(self.plan.status_interval) or memory.last_sent is None:
            return None  # nobody would hear of it, or it cannot be told
        model = self.algorithm.neighbour_model(update.parts, memory.last_sent)
        if model is None:
            return None
        own = self.algorithm.primal
        return float(torch.dist(own, model) / own.norm().clamp_min(torch.finfo(own.dtype).tiny))

    # --- life and membership ---------------------------------------------------------------------------------

    def _boot(self, event: Booted) -> list[Action]:
        self._booted_at = self._round_began = event.at
        self._elapsed_before = self.counters.elapsed
        for timer in (self._evaluate, self._checkpoint):
            timer.rang = event.at
        return self._begin_life(event.incarnation)

    def _begin_life(self, incarnation: int) -> list[Action]:
        self.counters.incarnation = incarnation
        self._spoken = 0
        for memory in self._edges.values():
            memory.sequence = 0
        return [Announce(self.table()), *self._last_words(self._edges)]

    def _last_words(self, neighbours: Iterable[str]) -> list[Action]:
        """What a site that has finished says again, since no round will end that would do so."""
        names = list(neighbours)
        if self.phase is not Phase.FINISHED or not self.algorithm.parts or not names:
            return []
        return [Publish(self._outgoing_to(names))]

    def greet(self) -> list[Action]:
        """What a site says in its first life before it has learned anything, so that others need not wait for it."""
        return [Publish(self._outgoing_to(self._edges))] if self.algorithm.parts else []

    def _start_among(self, event: NeighboursHeard) -> list[Action]:
        """Begin at the mean of the models of neighbours that have begun, if there are any, not where one stands.

        A first message over a new edge tells the sender's model, so neither end is moved by the other's coming.
        """
        begun = [update for update in event.updates if update.header.round > 0]
        known = [self.algorithm.neighbour_model(update.parts, None) for update in begun]
        models = [model for model in known if model is not None]
        if models:
            self.algorithm.begin_at(torch.stack(models).mean(dim=0))
            for neighbour, memory in self._edges.items():
                self.algorithm.remove_neighbour(neighbour)
                self.algorithm.add_neighbour(neighbour, memory.edge.terms)
        return self._absorb(UpdatesArrived(event.at, event.updates))

    def _change_edges(self, event: EdgesChanged) -> list[Action]:
        for neighbour in [name for name in self._edges if name not in event.edges]:
            self.algorithm.remove_neighbour(neighbour)
            del self._edges[neighbour]
        changed = [neighbour for neighbour in event.edges if not self._holds(neighbour, event.edges[neighbour])]
        for neighbour, edge in event.edges.items():
            memory = self._edges.get(neighbour)
            if memory is None:
                # The other end may remember this edge from before it was gone: go on above what was sent then.
                self._keep(neighbour, EdgeMemory(edge, sequence=self._spoken))
            elif memory.edge != edge:
                self.algorithm.change_epoch(neighbour, edge.terms)
                memory.edge = edge
        return [Announce(self.table()), *self._last_words(changed)]

    def _holds(self, neighbour: str, edge: Edge) -> bool:
        memory = self._edges.get(neighbour)
        return memory is not None and memory.edge == edge

    def _keep(self, neighbour: str, memory: EdgeMemory) -> None:
        self.algorithm.add_neighbour(neighbour, memory.edge.terms)
        self._edges[neighbour] = memory

    @property
    def steps_to_go(self) -> int:
        """Local steps until the round ends."""
        return self.plan.local_steps - self.counters.step % self.plan.local_steps

    # --- what is known ---------------------------------------------------------------------------------------

    def table(self) -> EdgeTable:
        """The edge table as it stands."""
        return EdgeTable(
            federation=self.identity.federation,
            fingerprint=self.identity.fingerprint,
            algorithm=self.algorithm.name,
            incarnation=self.counters.incarnation,
            layout=self.algorithm.layout(),
            edges={neighbour: memory.edge for neighbour, memory in self._edges.items()},
            seen={neighbour: str(stamp) for neighbour, stamp in self.seen().items() if stamp is not None},
        )

    def seen(self) -> dict[str, Stamp | None]:
        """The newest stamp absorbed from each neighbour."""
        return {neighbour: memory.seen for neighbour, memory in self._edges.items()}

    def lineage(self) -> Lineage:
        """What the model is made of, for those who serve it."""
        heard = {
            name: Heard(memory.neighbour_round, memory.seen.incarnation, memory.seen.sequence)
            for name, memory in self._edges.items()
            if memory.seen is not None and memory.neighbour_round is not None
        }
        distances = [memory.distance for memory in self._edges.values() if memory.distance is not None]
        return Lineage(self.counters.incarnation, heard, max(distances, default=None))

    def progress(self, at: float) -> Progress:
        """Where the site stands at time `at`."""
        counters = self.counters
        return Progress(
            phase=self.phase,
            incarnation=counters.incarnation,
            round=counters.round,
            step=counters.step,
            samples=counters.samples,
            loss=self.loss,
            metrics=dict(self.metrics),
            bad_steps=counters.bad_steps,
            rollbacks=counters.rollbacks,
            version=counters.version,
            edges={name: memory.status(counters.round, at) for name, memory in self._edges.items()},
        )

    # --- checkpoint ------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], str]:
        """Tensors (models and algorithm) and a JSON memo (counters, edges) that together restore this brain."""
        tensors = {f"algorithm.{name}": tensor for name, tensor in self.algorithm.state().items()}
        tensors |= {name: tensor.clone() for name, tensor in self._models().items()}
        memo = {
            "fingerprint": self.identity.fingerprint,
            "algorithm": self.algorithm.name,
            "counters": asdict(self.counters),
            "edges": {name: memory.memo() for name, memory in self._edges.items()},
            "metrics": dict(self.metrics),
        }
        return tensors, json.dumps(memo)

    def load_state(self, tensors: Mapping[str, Tensor], memo: str) -> None:
        """The inverse of `state`; the checkpoint's edges replace those of the job file.

        CheckpointError if the checkpoint is of another model or algorithm.
        """
        fields = json.loads(memo)
        self._check_same(fields)
        for neighbour in list(self._edges):
            self.algorithm.remove_neighbour(neighbour)
        self._edges.clear()
        for neighbour, edge_memo in fields["edges"].items():
            self._keep(neighbour, EdgeMemory.from_memo(edge_memo))
        self._load_model(tensors)
        self.counters = Counters(**fields["counters"])
        self.metrics = fields["metrics"]
        self.phase = Phase.FINISHED if self._is_done() else Phase.TRAINING

    def roll_back(self, tensors: Mapping[str, Tensor], memo: str) -> list[Action]:
        """Go back to a checkpoint's models and what was remembered of its edges; counters and edges go on as they are.

        What was taken in since is to be taken in again: a neighbour that has finished will not say it a second time.
        """
        saved = {name: EdgeMemory.from_memo(fields) for name, fields in json.loads(memo)["edges"].items()}
        for neighbour in self._edges:
            self.algorithm.remove_neighbour(neighbour)
        for neighbour, then in saved.items():
            self.algorithm.add_neighbour(neighbour, then.edge.terms)
        self._load_model(tensors)
        for neighbour in saved.keys() - self._edges.keys():
            self.algorithm.remove_neighbour(neighbour)
        for neighbour, memory in self._edges.items():
            memory.seen = saved[neighbour].seen if neighbour in saved else None
            if neighbour not in saved:
                self.algorithm.add_neighbour(neighbour, memory.edge.terms)
            elif saved[neighbour].edge != memory.edge:
                self.algorithm.change_epoch(neighbour, memory.edge.terms)
        self.counters.rollbacks += 1
        self._bad_in_a_row = 0
        return [Announce(self.table())]

    def _load_model(self, tensors: Mapping[str, Tensor]) -> None:
        for name, model in self._models().items():
            model.copy_(tensors[name])
        prefix = "algorithm."
        self.algorithm.load_state(
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        )

    def _models(self) -> dict[str, Tensor]:
        return {"primal": self.algorithm.primal} | ({} if self._own is None else {"own": self._own.primal})

    def _check_same(self, memo: Mapping[str, object]) -> None:
        if memo.get("fingerprint") != self.identity.fingerprint:
            raise CheckpointError(
                "the checkpoint is of another model: task.model, task.options and training.local must be as they were"
            )
        if memo.get("algorithm") != self.algorithm.name:
            raise CheckpointError(
                f"the checkpoint is of another algorithm: algorithm.name is '{self.algorithm.name}', and was "
                f"'{memo.get('algorithm')}'"
            )
