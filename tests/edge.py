"""One edge and everything that stands at its two ends but sockets and disks: real brains, posts, mailboxes, outboxes,
doors and lanes, driven one turn at a time, over a network and through faults that the test decides.

Checks at every turn what must never happen; `settle` ends the faults and checks that both ends hear each other again.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from concord.consensus.algorithm import EdgeTerms, LocalStep
from concord.consensus.registry import AlgorithmOptions, build_algorithm
from concord.errors import MailboxError, NotAllowed, TransportError, UpdateRefused
from concord.mailbox.memory import MemoryMailbox
from concord.serving.snapshots import MemoryShelf
from concord.site.actions import Action, Announce, Publish, SaveCheckpoint
from concord.site.brain import Brain, Identity, Plan
from concord.site.edges import NOTE_FLOOR, Edge
from concord.site.events import Booted, EdgesChanged, GradientComputed, Reincarnated, UpdatesArrived
from concord.site.ports import Box, Receipt, Slot
from concord.site.post import Post
from concord.transport.acceptance import Acceptance, EdgeBook
from concord.transport.courier import NOTE_MARK
from concord.transport.http import Busy, Delivered, Nothing, PullResult, PushResult, Refusal
from concord.transport.lane import CourierSettings, EdgeRoute, Lane
from concord.transport.outbox import Outbox
from concord.transport.traffic import ExchangeState
from concord.wire.messages import Stamp, Update

T = TypeVar("T")
NEVER = 1e18
PLAN = Plan(
    local_steps=1,
    evaluate_interval=NEVER,
    checkpoint_interval=NEVER,
    snapshot_interval=NEVER,
    status_interval=NEVER,
)
PENALTIES = (1.0, 2.0)
HEAL_ROUNDS = 8
"""Rounds of both sites, without faults, after which each must have heard the other's present life."""
LONG = 10
"""Rounds that both have done at first: more than they heal in, so that nobody is heard again just by counting up."""


class Waits(Exception):
    """A turn has nothing to do now."""


def drive(turn: Coroutine[Any, Any, T]) -> T:
    """Run a turn to its end; Waits if it would wait for something. Needs a running loop, and never yields to it."""
    try:
        turn.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    turn.close()
    raise Waits


class Clock:
    """Seconds; every look is long after the one before, so that no pause is still on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class WatchedMailbox(MemoryMailbox):
    """A mailbox whose slots must never go back."""

    async def put(self, box: Box, neighbour: str, slot: Slot) -> Receipt:
        before = self.stamp(box, neighbour)
        receipt = await super().put(box, neighbour, slot)
        after = self.stamp(box, neighbour)
        assert after is not None
        assert before is None or after >= before, f"{box} went back from {before} to {after}"
        assert receipt.newest == after
        return receipt

    def stamp(self, box: Box, neighbour: str) -> Stamp | None:
        held = self._held.get((box, neighbour))
        return None if held is None else held.slot.stamp


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint, and what the test knows to be absorbed in it."""

    tensors: Mapping[str, Tensor]
    memo: str
    heard: Stamp | None


@dataclass(slots=True)
class Disk:
    """What outlives a trainer: the incarnation file and the last two checkpoints."""

    incarnation: int = 0
    checkpoints: list[Saved] = field(default_factory=list)

    def next_incarnation(self, floor: int) -> int:
        self.incarnation = max(self.incarnation, floor) + 1
        return self.incarnation


class End:
    """One site: a trainer, a mailbox, and an exchange with one lane."""

    def __init__(self, edge: OneEdge, name: str, other: str, route: EdgeRoute) -> None:
        self.edge, self.name, self.other, self.route = edge, name, other, route
        self.disk = Disk()
        self.mailbox = WatchedMailbox(clock=edge.clock)
        self.decided: dict[str, Edge] = dict(edge.document(other))
        self.heard: Stamp | None = None
        """The newest update absorbed over the present edge, as the test saw it."""
        self.said: dict[Stamp, list[Tensor]] = {}
        """By stamp what was said under it; a site that lost its disk may use a stamp again."""
        self.said_now: set[Stamp] = set()
        """What the present trainer has said since the faults ended."""
        self.start_exchange()
        self.start_trainer()

    # --- the trainer, as `site.loop` drives it ----------------------------------------------------------------

    def start_trainer(self, back: int | None = None) -> None:
        """A new process, from the checkpoint that lies `back` behind the newest; None: there is none left."""
        primal = torch.tensor([float(len(self.name))], dtype=torch.float64)
        algorithm = build_algorithm(AlgorithmOptions("ecl"), primal, LocalStep(0.1, 1))
        self.gradient = torch.ones(1, dtype=torch.float64)
        self.brain = Brain(Identity("f", self.name, "p"), PLAN, algorithm, self.gradient, self.decided)
        self.post = Post(self.name, self.mailbox, MemoryShelf(), wall_clock=self.edge.clock)
        self.heard = None
        self.said_now.clear()
        if back is not None and self.disk.checkpoints:
            saved = self.disk.checkpoints[max(0, len(self.disk.checkpoints) - 1 - back)]
            self.brain.load_state(saved.tensors, saved.memo)
            held = self.brain.table().edges.get(self.other)
            now = self.decided.get(self.other)
            self.heard = saved.heard if held is not None and now is not None else None
            self.brain.handle(EdgesChanged(0.0, self.decided))
        incarnation = self.disk.next_incarnation(self.brain.counters.incarnation)
        self.perform(self.brain.handle(Booted(0.0, incarnation)))

    def train(self) -> None:
        """One round: heed, absorb, step, hand in."""
        if self.post.floor >= self.brain.counters.incarnation:
            incarnation = self.disk.next_incarnation(self.post.floor)
            self.perform(self.brain.handle(Reincarnated(0.0, incarnation)))
        for update in self.post.take():
            self.absorb(update)
        self.perform(self.brain.handle(GradientComputed(0.0, 0.0, 1, True)))

    def absorb(self, update: Update) -> None:
        before = self.received()
        self.brain.handle(UpdatesArrived(0.0, [update]))
        if self.received() == before:
            return
        header = update.header
        now = self.decided[self.other]
        assert header.stamp.epoch == now.epoch, "an update of another epoch was absorbed"
        assert header.penalty == now.terms.penalty, "an update on other terms was absorbed"
        assert self.heard is None or header.stamp > self.heard, f"{header.stamp} was absorbed after {self.heard}"
        said = self.edge.ends[self.other].said[header.stamp]
        assert any(torch.equal(update.parts["message"], message) for message in said), "nobody said that"
        self.heard = header.stamp

    def received(self) -> int:
        edge = self.brain.progress(0.0).edges.get(self.other)
        return 0 if edge is None else edge.received

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Announce):
                self.post.announce(action.table, self.brain.seen())
            elif isinstance(action, Publish):
                self.note(action.updates)
                self.post.send(action.updates)
            elif isinstance(action, SaveCheckpoint):
                self.save()

    def note(self, updates: Any) -> None:
        """Whatever is published was computed from the model and the anchor as the last local step left them."""
        for update in updates:
            anchor = self.brain.algorithm.state()[f"anchor/{update.header.receiver}"]
            message = update.parts["message"]
            assert torch.equal(message, 2 * self.brain.algorithm.primal - anchor)
            self.said.setdefault(update.header.stamp, []).append(message)
            self.said_now.add(update.header.stamp)

    def save(self) -> None:
        tensors, memo = self.brain.state()
        self.disk.checkpoints = [*self.disk.checkpoints, Saved(tensors, memo, self.heard)][-2:]

    def roll_back(self) -> None:
        """What too many bad steps lead to."""
        if self.disk.checkpoints:
            saved = self.disk.checkpoints[-1]
            held = '"edges": {}' not in saved.memo
            self.perform(self.brain.roll_back(saved.tensors, saved.memo))
            self.heard = saved.heard if held and self.other in self.decided else None

    def follow(self) -> None:
        """Take over what the membership document says now."""
        decided = self.edge.document(self.other)
        if decided == self.decided:
            return
        if not (decided and self.decided):
            self.heard = None
        self.decided = decided
        self.perform(self.brain.handle(EdgesChanged(0.0, decided)))
        routes = bool(decided)
        if routes != (self.lane is not None):
            self.lane = self.new_lane() if routes else None

    def carry(self) -> None:
        """The post's turns: what is on the desk goes out, what is in the inbox comes in."""
        drive(self.post.watch())
        self.post.report("{}")
        drive(self.post.deliver())

    def fetch(self) -> None:
        drive(self.post.fetch())

    # --- the exchange -----------------------------------------------------------------------------------------

    def start_exchange(self) -> None:
        self.state = ExchangeState(self.name)
        self.outbox = Outbox(self.mailbox, self.state, random.Random(0), self.edge.clock)
        self.book = EdgeBook(self.mailbox, self.name, None, self.edge.clock)
        self.acceptance = Acceptance(self.mailbox, self.book, self.state, self.edge.clock)
        self.lane: Lane | None = self.new_lane() if self.decided else None

    def new_lane(self) -> Lane:
        settings = CourierSettings(retry_cap=0.1, refused_cap=1.0)
        return Lane(
            *(self.route, settings, self.edge, self.outbox, self.acceptance),
            *(self.state.edges[self.other], random.Random(0), self.edge.clock),
        )

    def look(self) -> None:
        """The courier's look whether the mailbox was emptied."""
        if drive(self.mailbox.read_note(NOTE_MARK)) is None:
            drive(self.mailbox.write_note(NOTE_MARK, "here"))
            self.outbox.forget()
            if self.lane is not None:
                self.lane.forget()

    def push(self) -> None:
        if self.lane is not None and self.route.push:
            self.turn(self.lane.push())

    def pull(self) -> None:
        if self.lane is not None and self.lane.wants_pull():
            self.turn(self.lane.pull())

    def turn(self, turn: Coroutine[Any, Any, None]) -> None:
        self.edge.clock.now += 40.0
        with contextlib.suppress(Waits, MailboxError, NotAllowed):
            drive(turn)

    def empty(self) -> None:
        """The Redis of the site is started again, and it kept nothing."""
        self.mailbox._held.clear()
        self.mailbox._notes.clear()

    def expire(self) -> None:
        """What the other once sent has lain in the inbox for longer than a mailbox keeps it."""
        self.mailbox._held.pop((Box.INBOX, self.other), None)

    # --- the door ---------------------------------------------------------------------------------------------

    def accept(self, blob: bytes) -> PushResult:
        try:
            receipt = drive(self.acceptance.accept(self.other, blob))
        except UpdateRefused as refusal:
            return Refusal(409, refusal.reason.value, refusal.detail)
        except NotAllowed as problem:
            return Refusal(403, "not_allowed", str(problem))
        except MailboxError as problem:
            return Busy(503, None, str(problem))
        return Delivered(receipt.newest)

    def answer(self, after: Stamp | None) -> PullResult:
        try:
            drive(self.acceptance.limit(self.other))
            slot = drive(self.outbox.poll(self.other, after, 0.0))
            if slot is None and after is not None:
                drive(self.outbox.heed(self.other, after))
        except NotAllowed as problem:
            return Refusal(403, "not_allowed", str(problem))
        except MailboxError as problem:
            return Busy(503, None, str(problem))
        return slot or Nothing()

    def key(self) -> tuple[object, ...]:
        """All of it that decides what can happen next, but for the numbers that are learned."""
        brain, post, lane = self.brain, self.post, self.lane
        memory = brain._edges.get(self.other)
        return (
            (self.disk.incarnation, tuple(saved.memo for saved in self.disk.checkpoints)),
            (brain.counters.incarnation, brain._spoken, self.decided.get(self.other)),
            None if memory is None else (memory.sequence, memory.seen),
            (post.floor, post._seen.get(self.other), self.other in post._sent, bool(post._desk.gone)),
            tuple(update.header.stamp for box in (post._arrived, post._desk.updates) for update in box.values()),
            tuple(self.mailbox.stamp(box, self.other) for box in Box),
            (drive(self.mailbox.read_note(NOTE_FLOOR)), frozenset(self.mailbox._notes)),
            None if lane is None else (lane._delivered, lane._held, lane._recovering),
            self.outbox._agreed.get(self.other, (None,))[0],
            (self.book._text is None, self.book.seen(self.other)),
        )


class OneEdge:
    """Two ends, what was decided of the edge between them, and a network.

    `fate` says what becomes of the next request: "arrives", "lost", "unanswered" (it arrives, and the answer is
    lost), "late" (it arrives when the test lets it), "twice" (it arrives now and may arrive again).
    """

    def __init__(self, pushes: str = "AB", pulls: str = "") -> None:
        self.clock = Clock()
        self.there, self.epoch, self.penalty = True, 1, 0
        self.late: list[tuple[str, bytes]] = []
        self.fate = "arrives"
        self.steps = 0

        def route(name: str, other: str) -> EdgeRoute:
            calls = name in pushes + pulls
            return EdgeRoute(other, "http://" + other if calls else None, name in pushes, name in pulls)

        self.ends = {name: End(self, name, other, route(name, other)) for name, other in ("AB", "BA")}
        for end in self.ends.values():
            for _ in range(LONG):
                end.train()

    def document(self, neighbour: str) -> dict[str, Edge]:
        """What the membership document says of the edge now, to the end that has this neighbour."""
        terms = EdgeTerms(PENALTIES[self.penalty % len(PENALTIES)])
        return {neighbour: Edge(self.epoch, terms)} if self.there else {}

    # --- the network, as a lane's link ------------------------------------------------------------------------

    async def push(self, url: str, receiver: str, slot: Slot) -> PushResult:
        fate, self.fate = self.fate, "arrives"
        if fate in ("late", "twice"):
            self.late.append((receiver, slot.blob))
        if fate in ("late", "lost"):
            raise TransportError(fate)
        answer = self.ends[receiver].accept(slot.blob)
        if fate == "unanswered":
            raise TransportError(fate)
        return answer

    async def pull(self, url: str, sender: str, after: Stamp | None, wait: float, max_bytes: int) -> PullResult:
        fate, self.fate = self.fate, "arrives"
        if fate in ("late", "lost"):
            raise TransportError(fate)
        answer = self.ends[sender].answer(after)
        if fate == "unanswered":
            raise TransportError(fate)
        return answer

    # --- what can happen --------------------------------------------------------------------------------------

    def do(self, what: str) -> None:
        """One event, as `verb`, `verb end` or `verb end how`."""
        self.steps += 1
        self.clock.now += 2.0
        verb, name, how = (*what.split(), "", "")[:3]
        if verb == "arrive":
            if self.late:
                receiver, blob = self.late.pop(0 if how != "last" else -1)
                self.ends[receiver].accept(blob)
            return
        if verb == "document":
            self.there = {"remove": False, "add": True}.get(name, self.there)
            self.epoch += name == "epoch" or (name == "add" and how == "anew")
            self.penalty += name == "terms"
            return
        end = self.ends[name]
        if verb in ("push", "pull"):
            self.fate = how or "arrives"
            (end.push if verb == "push" else end.pull)()
        elif verb == "die":
            if how == "bare":
                end.disk = Disk()
            elif how == "forgetful":
                end.disk.incarnation = 0
            end.start_trainer({"newest": 0, "older": 1, "forgetful": 1, "bare": None}[how])
        else:
            turns = {"train": end.train, "carry": end.carry, "fetch": end.fetch, "look": end.look, "save": end.save}
            faults = {"empty": end.empty, "expire": end.expire, "exchange": end.start_exchange, "back": end.roll_back}
            (turns | faults | {"follow": end.follow})[verb]()

    def settle(self) -> None:
        """No more faults, and the edge stands: within some rounds each end hears the other's present life."""
        self.fate = "arrives"
        self.do("document add")
        for name, end in self.ends.items():
            end.said_now.clear()
            self.do(f"follow {name}")
        for _ in range(HEAL_ROUNDS):
            for verb in ("look", "fetch", "train", "carry", "push", "pull"):
                for name in self.ends:
                    self.do(f"{verb} {name}")
            if self.is_well():
                return
        raise AssertionError(
            {name: (str(end.heard), sorted(map(str, end.said_now))) for name, end in self.ends.items()}
        )

    def is_well(self) -> bool:
        """Whether each end has taken in something that the other said since the faults ended."""
        return all(end.heard in self.ends[end.other].said_now for end in self.ends.values())

    def key(self) -> tuple[object, ...]:
        """Two edges with equal keys have the same futures, but for the numbers that are learned."""
        late = tuple((receiver, len(blob), hash(blob)) for receiver, blob in self.late)
        return (self.there, self.epoch, self.penalty, late, *(end.key() for end in self.ends.values()))
