"""One edge under everything that can go wrong: an exhaustive search, long random walks, and walks that shrink.

`edge.OneEdge` checks at every step that no slot goes back, that nothing is absorbed twice or after something newer,
that only updates of the edge's epoch and terms are, and that each is what its sender computed at its last step;
and wherever a walk ends, that both ends hear each other again once the faults are over.
"""

from __future__ import annotations

import logging
import os
import random
from collections import deque
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from edge import OneEdge

pytestmark = pytest.mark.anyio

SIZE = int(os.environ.get("CONCORD_PROOF", "1"))
"""How many times the usual length to run for: `make proof` sets it."""
WAYS = {
    "both push": ("AB", ""),
    "both pull": ("", "AB"),
    "one does all the calling": ("A", "A"),
    "one pushes, one pulls": ("A", "AB"),
    "both push and pull": ("AB", "AB"),
}
ENDS = "AB"
USUAL = [
    f"{verb} {end}" for verb in ("train", "carry", "fetch", "push", "pull", "look", "save", "follow") for end in ENDS
]
FAULTS = [
    *(f"push {end} {fate}" for end in ENDS for fate in ("lost", "unanswered", "late", "twice")),
    *(f"pull {end} {fate}" for end in ENDS for fate in ("lost", "unanswered")),
    *("arrive - first", "arrive - last"),
    *(f"die {end} {how}" for end in ENDS for how in ("newest", "older", "forgetful", "bare")),
    *(f"{verb} {end}" for verb in ("empty", "expire", "exchange", "back") for end in ENDS),
    *("document remove", "document add", "document add anew", "document terms", "document epoch"),
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Refusals are what is tested; a line about each would take longer than the test."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def walk(ways: tuple[str, str], events: Iterable[str]) -> OneEdge:
    edge = OneEdge(*ways)
    for event in events:
        edge.do(event)
    return edge


@pytest.mark.parametrize("ways", WAYS.values(), ids=WAYS)
async def test_random_walks_end_with_both_heard(ways: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    steps, number = 0, 0
    while steps < 20_000 * SIZE:
        draw = random.Random(number)
        edge = OneEdge(*ways)
        faulty = draw.choice((0.1, 0.25, 0.5))
        path = []
        try:
            for _ in range(draw.choice((20, 60, 150))):
                path.append(draw.choice(FAULTS if draw.random() < faulty else USUAL))
                edge.do(path[-1])
            edge.settle()
        except Exception as error:
            error.add_note(f"walk {number}: {path}")
            raise
        steps += edge.steps
        number += 1
    with capsys.disabled():
        print(f"\n{number} random walks of {steps} steps ", end="")


MET = (*("train A", "carry A", "train B", "carry B", "push A", "push B", "pull A", "pull B"), "fetch A", "fetch B") * 2
"""Both ends have heard each other twice."""
SAVED = ("save A", "save B", "train A", "carry A", "push A", "pull B", "fetch B")
"""And A has gone on since the checkpoints."""
MOVES: dict[str, tuple[str, ...]] = {
    "A says": ("train A", "carry A"),
    "B says": ("train B", "carry B"),
    "A to B": ("push A", "pull B", "fetch B"),
    "B to A": ("push B", "pull A", "fetch A"),
    "A to B, late": ("push A late",),
    "A to B, unanswered": ("push A unanswered",),
    "what is late": ("arrive - first", "fetch A", "fetch B"),
    "A saves": ("save A",),
    "A dies": ("die A newest",),
    "A dies, older": ("die A older",),
    "A's folder is lost": ("die A bare",),
    "A's mailbox is lost": ("empty A",),
    "B's mailbox is lost": ("empty B",),
    "A's slot expires at B": ("expire B",),
    "A's exchange starts anew": ("exchange A",),
    "the edge goes": ("document remove",),
    "the edge comes": ("document add",),
    "the terms change": ("document terms",),
    "A follows": ("follow A",),
    "B follows": ("follow B",),
    "A goes back": ("back A",),
}


async def test_every_way_that_few_moves_can_go(capsys: pytest.CaptureFixture[str]) -> None:
    """Breadth first: from each state that can be told from those before, both ends find to each other."""
    ways = WAYS["both push"]
    depth = 2 if SIZE == 1 else 3
    known = set()
    states = steps = 0
    frontier: deque[tuple[str, ...]] = deque([()])
    while frontier:
        path = frontier.popleft()
        edge = walk(ways, (*MET, *SAVED, *(event for move in path for event in MOVES[move])))
        key = edge.key()
        if key in known:
            continue
        known.add(key)
        try:
            edge.settle()
        except AssertionError as error:
            error.add_note(f"after {path}")
            raise
        states, steps = states + 1, steps + edge.steps
        if len(path) < depth:
            frontier.extend((*path, move) for move in MOVES)
    with capsys.disabled():
        print(f"\n{states} states, {steps} steps ", end="")
    assert states > len(MOVES)


class Edges(RuleBasedStateMachine):
    """The same events under hypothesis, which makes what it finds short."""

    def __init__(self) -> None:
        super().__init__()
        self.edge = OneEdge("AB", "A")

    @rule(event=st.sampled_from(USUAL))
    def usual(self, event: str) -> None:
        self.edge.do(event)

    @rule(event=st.sampled_from(FAULTS))
    def fault(self, event: str) -> None:
        self.edge.do(event)

    @rule(first=st.sampled_from(ENDS))
    def exchange(self, first: str) -> None:
        for end in (first, "B" if first == "A" else "A"):
            for verb in ("fetch", "train", "carry", "push", "pull"):
                self.edge.do(f"{verb} {end}")

    @invariant()
    def sequence_numbers_are_behind_what_was_spoken(self) -> None:
        for end in self.edge.ends.values():
            assert all(memory.sequence <= end.brain._spoken for memory in end.brain._edges.values())

    def teardown(self) -> None:
        self.edge.settle()


async def test_no_walk_that_hypothesis_finds_breaks_it() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Edges,
        settings=settings(
            max_examples=40 * SIZE,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
