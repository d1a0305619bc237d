"""The brain is fed events and its actions are compared: no clock, no thread, no I/O."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from concord.consensus.algorithm import EdgeTerms, LocalStep, PartLayout
from concord.consensus.registry import AlgorithmOptions, build_algorithm
from concord.errors import CheckpointError
from concord.site.actions import (
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
from concord.site.brain import Brain, Identity, Plan
from concord.site.edges import Edge
from concord.site.events import (
    Booted,
    EdgesChanged,
    Evaluated,
    GradientComputed,
    NeighboursHeard,
    Reincarnated,
    UpdatesArrived,
)
from concord.site.ports import Heard, Lineage
from concord.site.status import Phase
from concord.wire.messages import Header, Stamp, Update

STEP = LocalStep(rate=0.1, steps=2)
TERMS = EdgeTerms(penalty=2.0, averaging=1.0)
NEVER = 1e9
QUIET = Plan(
    local_steps=2,
    evaluate_interval=NEVER,
    checkpoint_interval=NEVER,
    snapshot_interval=NEVER,
    status_interval=NEVER,
    max_bad_steps=3,
)


def make_brain(
    plan: Plan = QUIET, neighbours: tuple[str, ...] = ("N2",), algorithm: str = "ecl", size: int = 3
) -> Brain:
    primal = torch.zeros(size)
    return Brain(
        Identity("federation", "N1", "print" if size == 3 else f"print of {size}"),
        plan,
        build_algorithm(AlgorithmOptions(name=algorithm), primal, STEP),
        torch.ones(size),
        {name: Edge(1, TERMS) for name in neighbours},
    )


def boot(brain: Brain, at: float = 0.0, incarnation: int = 1) -> list[Action]:
    return brain.handle(Booted(at, incarnation))


def step(brain: Brain, at: float = 0.0, finite: bool = True) -> list[Action]:
    return brain.handle(GradientComputed(at, loss=1.5, samples=4, finite=finite))


def settle(brain: Brain) -> None:
    """Past the first round, at whose end every timer that never rang before rings."""
    boot(brain)
    step(brain)
    step(brain)


def update_from(sender: str, stamp: Stamp, value: float = 1.0, round: int = 7) -> Update:
    header = Header(
        federation="federation",
        fingerprint="print",
        sender=sender,
        receiver="N1",
        stamp=stamp,
        step=14,
        round=round,
        algorithm="ecl",
        penalty=2.0,
        averaging=1.0,
        sent_at=0.0,
    )
    return Update(header, {"message": torch.full((3,), value)})


def only(actions: list[Action], kind: type[Action]) -> Action:
    (found,) = [action for action in actions if isinstance(action, kind)]
    return found


def published(actions: list[Action]) -> dict[str, Update]:
    action = only(actions, Publish)
    assert isinstance(action, Publish)
    return {update.header.receiver: update for update in action.updates}


def test_boot_announces_the_edge_table() -> None:
    brain = make_brain()
    action = only(boot(brain, incarnation=5), Announce)
    assert isinstance(action, Announce)
    assert action.table.incarnation == 5
    assert action.table.layout == {"message": PartLayout("float32", 3)}
    assert action.table.edges == {"N2": Edge(1, TERMS)}


def test_a_round_is_local_steps_and_one_publication() -> None:
    brain = make_brain(neighbours=("N2", "N3"))
    settle(brain)
    assert step(brain) == []
    updates = published(step(brain))
    assert set(updates) == {"N2", "N3"}
    header = updates["N2"].header
    assert (header.stamp, header.round, header.step) == (Stamp(1, 1, 2), 2, 4)
    assert (header.penalty, header.averaging, header.algorithm) == (2.0, 1.0, "ecl")


def test_what_is_published_was_computed_at_the_step() -> None:
    brain = make_brain()
    settle(brain)
    step(brain)
    update = published(step(brain))["N2"]
    expected = 2 * brain.algorithm.primal  # the anchor still is the common start, zero
    brain.handle(UpdatesArrived(0.0, [update_from("N2", Stamp(1, 1, 1))]))
    torch.testing.assert_close(update.parts["message"], expected)


def test_a_round_shorter_than_its_pace_rests_for_what_is_left() -> None:
    plan = Plan(local_steps=1, pace=1.0, status_interval=NEVER, snapshot_interval=NEVER, evaluate_interval=NEVER)
    brain = make_brain(plan)
    boot(brain, at=10.0)
    rests = []
    for at in (10.25, 11.5, 13.5, 13.75):
        rests += [(at, action.seconds) for action in step(brain, at) if isinstance(action, Rest)]
    assert rests == [(10.25, 0.75), (11.5, 0.5), (13.75, 0.75)]


def test_an_algorithm_that_sends_nothing_publishes_nothing() -> None:
    brain = make_brain(algorithm="local")
    settle(brain)
    assert not any(isinstance(action, Publish) for action in [*step(brain), *step(brain)])


@pytest.mark.parametrize("stale", [Stamp(1, 3, 4), Stamp(1, 3, 5), Stamp(1, 2, 9), Stamp(0, 9, 9), Stamp(2, 9, 9)])
def test_an_old_update_or_one_of_another_epoch_changes_nothing(stale: Stamp) -> None:
    brain = make_brain()
    boot(brain)
    brain.handle(UpdatesArrived(0.0, [update_from("N2", Stamp(1, 3, 5))]))
    before = brain.algorithm.state()
    brain.handle(UpdatesArrived(1.0, [update_from("N2", stale, value=9.0), update_from("N9", stale)]))
    after = brain.algorithm.state()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert brain.seen() == {"N2": Stamp(1, 3, 5)}


def test_a_neighbour_that_restarted_is_heard() -> None:
    brain = make_brain()
    boot(brain)
    brain.handle(UpdatesArrived(0.0, [update_from("N2", Stamp(1, 3, 2000))]))
    brain.handle(UpdatesArrived(0.0, [update_from("N2", Stamp(1, 4, 1))]))
    assert brain.seen() == {"N2": Stamp(1, 4, 1)}


def test_staleness_grows_while_a_neighbour_is_silent_and_the_edge_stays() -> None:
    brain = make_brain()
    boot(brain)
    brain.handle(UpdatesArrived(10.0, [update_from("N2", Stamp(1, 1, 1))]))
    for _ in range(6):
        step(brain, at=12.0)
    edge = brain.progress(at=13.0).edges["N2"]
    assert (edge.staleness_rounds, edge.staleness_seconds, edge.neighbour_round) == (3, 3.0, 7)
    assert edge.received == 1


def test_no_update_yet_is_not_staleness_zero() -> None:
    edge = make_brain().progress(at=5.0).edges["N2"]
    assert (edge.staleness_rounds, edge.staleness_seconds, edge.consensus_distance) == (None, None, None)


def test_consensus_distance_reads_the_neighbours_model_off_two_messages() -> None:
    brain = make_brain()
    settle(brain)
    step(brain)
    sent = published(step(brain))["N2"].parts["message"]
    theirs = torch.tensor([0.5, -0.25, 2.0])
    message = 2 * theirs - sent  # their anchor for us is what we sent
    update = update_from("N2", Stamp(1, 1, 1))
    brain.handle(UpdatesArrived(0.0, [Update(update.header, {"message": message})]))
    own = brain.algorithm.primal
    found = brain.progress(0.0).edges["N2"].consensus_distance
    assert found == pytest.approx(float(torch.dist(own, theirs) / own.norm()), rel=1e-5)


def test_the_lineage_of_a_model_is_what_was_heard_of_each_neighbour() -> None:
    brain = make_brain(replace(QUIET, status_interval=1.0), neighbours=("N2", "N3", "N4"))
    boot(brain, incarnation=4)
    assert brain.lineage() == Lineage(incarnation=4)
    settle(brain)
    for sender, sequence in (("N2", 5), ("N3", 6)):
        brain.handle(UpdatesArrived(1.0, [update_from(sender, Stamp(1, 2, sequence), float(sequence), round=9)]))
    lineage = brain.lineage()
    assert lineage.heard == {"N2": Heard(9, 2, 5), "N3": Heard(9, 2, 6)}
    distances = [edge.consensus_distance for edge in brain.progress(1.0).edges.values()]
    assert lineage.consensus_distance == max(distance for distance in distances if distance is not None)


def test_a_brain_whose_status_is_never_due_computes_no_distances() -> None:
    brain = make_brain(replace(QUIET, status_interval=math.inf))
    settle(brain)
    brain.handle(UpdatesArrived(0.0, [update_from("N2", Stamp(1, 1, 1))]))
    edge = brain.progress(0.0).edges["N2"]
    assert (edge.received, edge.consensus_distance) == (1, None)


def test_a_step_without_finite_gradient_is_dropped_and_counted() -> None:
    brain = make_brain()
    settle(brain)
    before = brain.algorithm.primal.clone()
    assert step(brain, finite=False) == []
    assert torch.equal(brain.algorithm.primal, before)
    assert brain.progress(0.0).bad_steps == 1
    assert brain.progress(0.0).step == 2


def test_too_many_bad_steps_in_a_row_roll_back() -> None:
    brain = make_brain()
    settle(brain)
    outcomes = [step(brain, finite=finite) for finite in (False, False, True, False, False, False)]
    assert outcomes[-1] == [RollBack(3)]
    assert not any(isinstance(action, RollBack) for actions in outcomes[:-1] for action in actions)
    brain.roll_back(*brain.state())
    assert brain.progress(0.0).rollbacks == 1
    assert step(brain, finite=False) == []


def test_the_last_round_leaves_everything_behind_in_order() -> None:
    brain = make_brain(Plan(local_steps=2, rounds=2, snapshot_interval=NEVER))
    settle(brain)
    step(brain)
    actions = step(brain)
    kinds = [Publish, Evaluate, PublishSnapshot, SaveCheckpoint, ReportStatus, Finish]
    assert [type(action) for action in actions] == kinds
    assert brain.phase is Phase.FINISHED


def test_a_time_limit_counts_training_time_over_restarts() -> None:
    plan = Plan(local_steps=1, seconds=10.0)
    brain = make_brain(plan)
    boot(brain, at=100.0)
    step(brain, at=107.0)
    tensors, memo = brain.state()
    again = make_brain(plan)
    again.load_state(tensors, memo)
    boot(again, at=5000.0, incarnation=2)
    assert not any(isinstance(action, Finish) for action in step(again, at=5002.0))
    assert any(isinstance(action, Finish) for action in step(again, at=5003.0))


def test_a_snapshot_carries_the_metrics_of_the_evaluation_before_it() -> None:
    brain = make_brain(Plan(local_steps=1, snapshot_interval=1.0, evaluate_interval=NEVER))
    boot(brain)
    kinds = [type(action) for action in step(brain, at=2.0)]
    assert kinds.index(Evaluate) < kinds.index(PublishSnapshot)
    brain.handle(Evaluated(2.0, {"accuracy": 0.9}))
    assert brain.progress(2.0).metrics == {"accuracy": 0.9}


def trained_brain() -> Brain:
    brain = make_brain(neighbours=("N2", "N3"), algorithm="sm-ecl")
    settle(brain)
    for sequence in range(1, 4):
        brain.handle(UpdatesArrived(0.0, [update_from("N2", Stamp(1, 1, sequence), value=0.1 * sequence)]))
        step(brain)
    return brain


def test_a_restored_brain_steps_bit_identically_and_outranks_its_old_life() -> None:
    brain = trained_brain()
    tensors, memo = brain.state()
    again = make_brain(neighbours=("N2", "N3"), algorithm="sm-ecl")
    again.load_state(tensors, memo)
    boot(again, incarnation=2)
    for one in (brain, again):
        one.handle(UpdatesArrived(0.0, [update_from("N3", Stamp(1, 1, 1), value=0.3)]))
    for _ in range(5):
        ours, theirs = step(brain), step(again)
        assert torch.equal(brain.algorithm.primal, again.algorithm.primal)
    sent, resent = published(ours)["N2"], published(theirs)["N2"]
    assert torch.equal(sent.parts["message"], resent.parts["message"])
    assert resent.header.stamp > sent.header.stamp
    assert again.seen() == brain.seen()


def test_a_checkpoint_of_another_model_is_refused() -> None:
    tensors, memo = make_brain(size=4).state()
    with pytest.raises(CheckpointError, match="another model"):
        make_brain(size=3).load_state(tensors, memo)


def test_a_neighbour_that_remembers_a_later_life_makes_the_site_outrank_it() -> None:
    brain = make_brain()
    settle(brain)
    action = only(brain.handle(Reincarnated(0.0, 9)), Announce)
    assert isinstance(action, Announce)
    assert action.table.incarnation == 9
    step(brain)
    assert published(step(brain))["N2"].header.stamp == Stamp(1, 9, 1)


def test_edges_come_go_and_change_by_decision() -> None:
    brain = make_brain(neighbours=("N2", "N3"))
    settle(brain)
    harder = EdgeTerms(penalty=4.0, averaging=1.0)
    action = only(brain.handle(EdgesChanged(0.0, {"N3": Edge(2, harder), "N4": Edge(1, TERMS)})), Announce)
    assert isinstance(action, Announce)
    assert action.table.edges == {"N3": Edge(2, harder), "N4": Edge(1, TERMS)}
    step(brain)
    updates = published(step(brain))
    assert set(updates) == {"N3", "N4"}
    assert updates["N3"].header.stamp.epoch == 2
    assert updates["N3"].header.penalty == 4.0


def test_an_edge_that_comes_back_goes_on_above_what_was_sent_over_it_before() -> None:
    brain = make_brain()
    settle(brain)
    step(brain)
    before = published(step(brain))["N2"].header.stamp
    brain.handle(EdgesChanged(0.0, {}))
    brain.handle(EdgesChanged(0.0, {"N2": Edge(1, TERMS)}))
    step(brain)
    assert published(step(brain))["N2"].header.stamp > before


def test_a_site_that_has_finished_still_tells_a_new_neighbour_its_model() -> None:
    brain = make_brain(replace(QUIET, rounds=1))
    settle(brain)
    assert brain.phase is Phase.FINISHED
    (update,) = published(brain.handle(EdgesChanged(0.0, {"N2": Edge(1, TERMS), "N3": Edge(1, TERMS)}))).values()
    assert update.header.receiver == "N3"
    assert torch.equal(update.parts["message"], brain.algorithm.primal)


def test_a_new_site_begins_where_its_neighbours_are_and_moves_none_of_them() -> None:
    brain = make_brain(neighbours=("N2", "N3"))
    boot(brain)
    assert {update.header.round for update in published(brain.greet()).values()} == {0}
    heard = [update_from("N2", Stamp(1, 1, 4), value=2.0), update_from("N3", Stamp(1, 1, 9), value=4.0)]
    brain.handle(NeighboursHeard(0.0, heard))
    assert torch.equal(brain.algorithm.primal, torch.full((3,), 3.0))
    brain._gradient.zero_()
    step(brain)
    updates = published(step(brain))
    # 2w - u: each neighbour is shown the other one's model, and w stays between them.
    assert torch.allclose(updates["N2"].parts["message"], torch.full((3,), 4.0))
    assert torch.allclose(updates["N3"].parts["message"], torch.full((3,), 2.0))


def test_among_sites_that_have_not_begun_the_common_start_stays() -> None:
    brain = make_brain()
    boot(brain)
    brain.handle(NeighboursHeard(0.0, [update_from("N2", Stamp(1, 1, 1), value=2.0, round=0)]))
    assert torch.equal(brain.algorithm.primal, torch.zeros(3))


def test_the_greeting_of_a_site_that_has_not_begun_pulls_nobody_back() -> None:
    brain = make_brain()
    settle(brain)
    before = brain.algorithm.state()["anchor/N2"]
    brain.handle(UpdatesArrived(0.0, [update_from("N2", Stamp(1, 1, 1), value=-9.0, round=0)]))
    assert torch.equal(brain.algorithm.state()["anchor/N2"], before)


def test_an_update_whose_content_cannot_be_is_counted_and_changes_nothing() -> None:
    primal = torch.zeros(4)
    options = AlgorithmOptions("c-ecl", compression="top-k", keep=0.5)
    algorithm = build_algorithm(options, primal, STEP)
    brain = Brain(Identity("federation", "N1", "print"), QUIET, algorithm, torch.ones(4), {"N2": Edge(1, TERMS)})
    assert brain.table().layout == {"values": PartLayout("float32", 2), "indices": PartLayout("int32", 2)}
    header = update_from("N2", Stamp(1, 1, 1)).header
    settle(brain)
    for number, indices in enumerate(([0, 4], [0, 3])):
        before = algorithm.state()["anchor/N2"]
        parts = {"values": torch.ones(2), "indices": torch.tensor(indices, dtype=torch.int32)}
        brain.handle(UpdatesArrived(0.0, [Update(replace(header, stamp=Stamp(1, 1, number + 1)), parts)]))
        assert torch.equal(algorithm.state()["anchor/N2"], before) == (number == 0)
        assert (brain.refused, brain.progress(0.0).edges["N2"].received) == (1, number)


def test_an_update_on_other_terms_that_lay_in_the_post_while_they_changed_is_not_absorbed() -> None:
    brain = make_brain()
    settle(brain)
    brain.handle(EdgesChanged(0.0, {"N2": Edge(1, EdgeTerms(penalty=4.0, averaging=1.0))}))
    brain.handle(UpdatesArrived(0.0, [update_from("N2", Stamp(1, 1, 1))]))
    assert (brain.seen(), brain.progress(0.0).edges["N2"].received) == ({"N2": None}, 0)


def test_a_rollback_takes_in_anew_what_came_since_and_keeps_the_edges_as_they_are_now() -> None:
    brain = make_brain(neighbours=("N2", "N3"))
    settle(brain)
    brain.handle(UpdatesArrived(0.0, [update_from("N2", Stamp(1, 1, 1), value=0.5)]))
    checkpoint = brain.state()
    last = update_from("N2", Stamp(1, 1, 2), value=3.0)
    brain.handle(UpdatesArrived(0.0, [last]))
    harder = Edge(1, EdgeTerms(penalty=4.0, averaging=1.0))
    edges = {"N2": harder, "N4": Edge(2, TERMS)}
    brain.handle(EdgesChanged(0.0, edges))
    round_ = brain.counters.round
    action = only(brain.roll_back(*checkpoint), Announce)
    assert isinstance(action, Announce)
    assert action.table.edges == edges
    assert brain.seen() == {"N2": Stamp(1, 1, 1), "N4": None}
    assert torch.equal(brain.algorithm.state()["anchor/N2"], torch.full((3,), 0.5))
    assert (brain.counters.round, brain.counters.rollbacks) == (round_, 1)
    header = replace(last.header, penalty=4.0)
    brain.handle(UpdatesArrived(0.0, [Update(header, last.parts)]))
    assert torch.equal(brain.algorithm.state()["anchor/N2"], torch.full((3,), 3.0))


def test_a_site_that_has_finished_says_its_last_words_again_in_each_new_life_and_on_new_terms() -> None:
    brain = make_brain(replace(QUIET, rounds=1))
    boot(brain)
    step(brain)
    last = published(step(brain))["N2"]
    again = make_brain(replace(QUIET, rounds=1))
    again.load_state(*brain.state())
    first = published(boot(again, incarnation=2))["N2"]
    second = published(again.handle(Reincarnated(0.0, 7)))["N2"]
    harder = EdgeTerms(penalty=4.0, averaging=1.0)
    third = published(again.handle(EdgesChanged(0.0, {"N2": Edge(1, harder)})))["N2"]
    for update in (first, second, third):
        assert torch.equal(update.parts["message"], last.parts["message"])
    assert last.header.stamp < first.header.stamp < second.header.stamp < third.header.stamp
    assert third.header.penalty == 4.0


def test_a_finished_site_whose_edge_comes_back_outranks_what_it_said_before_its_first_round() -> None:
    brain = make_brain(replace(QUIET, rounds=1))
    boot(brain)
    brain.greet()
    step(brain)
    last = published(step(brain))["N2"].header.stamp
    brain.handle(EdgesChanged(0.0, {}))
    assert published(brain.handle(EdgesChanged(0.0, {"N2": Edge(1, TERMS)})))["N2"].header.stamp > last
