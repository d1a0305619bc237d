"""How algorithms are driven: settings, terms, order of use, membership, state, and what a step allocates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from concord.consensus.algorithm import Algorithm, EdgeEnd, EdgeTerms, LocalStep, PartLayout
from concord.consensus.registry import AlgorithmOptions, algorithm_names, build_algorithm, edge_terms
from concord.consensus.sm_ecl import reach
from concord.consensus.vectors import Layer
from concord.errors import AlgorithmError, JobError

STEP = LocalStep(rate=0.1, steps=4)
TERMS = EdgeTerms(penalty=1.5, averaging=1.0)
SENDING = [name for name in algorithm_names() if name != "local"]
ANCHORED = ["ecl", "ecl-isvr", "sm-ecl"]


def build(name: str, *neighbours: str, dim: int = 3, dtype: torch.dtype = torch.float64) -> Algorithm:
    """An algorithm over 1, 2, 3, ... with edges of equal terms."""
    primal = torch.arange(1, dim + 1, dtype=dtype)
    algorithm = build_algorithm(AlgorithmOptions(name), primal, STEP)
    for neighbour in neighbours:
        algorithm.add_neighbour(neighbour, TERMS)
    return algorithm


def message_like(algorithm: Algorithm, value: float) -> dict[str, Tensor]:
    """A message of the right layout: every float is `value`; whole numbers count up from 1, as indices do."""
    return {name: _filled(part, value) for name, part in algorithm.layout().items()}


def _filled(part: PartLayout, value: float) -> Tensor:
    dtype: torch.dtype = getattr(torch, part.dtype)
    return (
        torch.full((part.length,), value, dtype=dtype)
        if dtype.is_floating_point
        else torch.arange(1, part.length + 1).to(dtype)
    )


def stir(algorithm: Algorithm, neighbours: tuple[str, ...], rounds: int = 7, seed: int = 0) -> None:
    """Random gradients and messages, so that all the algorithm remembers is different from the start."""
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.empty_like(algorithm.primal).normal_(generator=generator)

    for number in range(rounds):
        neighbour = neighbours[number % len(neighbours)]
        message = message_like(algorithm, 0.0)
        for part in message.values():
            if part.dtype.is_floating_point:
                part.normal_(generator=generator)
        algorithm.absorb(neighbour, message)
        algorithm.local_step(noise())
        algorithm.local_step(noise())


# Settings


def test_names() -> None:
    assert {"ecl", "ecl-isvr", "gossip", "local", "sm-ecl"} < set(algorithm_names())
    assert list(algorithm_names()) == sorted(algorithm_names())
    assert AlgorithmOptions().name == "sm-ecl"


def test_unknown_name_says_the_nearest() -> None:
    with pytest.raises(JobError, match="unknown algorithm 'ecl-isrv'; did you mean 'ecl-isvr'"):
        build("ecl-isrv")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"penalty": 0.0}, "penalty is 0.0; it must be a finite number above 0"),
        ({"penalty": math.nan}, "penalty is nan"),
        ({"penalty_scale": math.inf}, "penalty_scale is inf"),
        ({"gamma_scale": -1.0}, "gamma_scale is -1.0"),
        ({"averaging": 0.0}, "averaging is 0.0; it must be above 0 and at most 1"),
        ({"averaging": 1.5}, "averaging is 1.5"),
        ({"averaging": math.nan}, "averaging is nan"),
    ],
)
def test_settings_out_of_range_name_the_key_and_the_range(values: dict[str, float], said: str) -> None:
    with pytest.raises(JobError) as refused:
        AlgorithmOptions(**values)  # type: ignore[arg-type]  # every value given is a number
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("ecl", LocalStep(0.0, 1), "learning_rate is 0.0"),
        ("gossip", LocalStep(math.nan, 1), "learning_rate is nan"),
        ("local", LocalStep(0.1, 0), "local_steps is 0; local needs at least 1"),
        ("ecl-isvr", LocalStep(0.1, 1), "local_steps is 1; ecl-isvr needs at least 2"),
        ("c-ecl", LocalStep(0.1, 1), "local_steps is 1; c-ecl needs at least 2"),
    ],
)
def test_impossible_steps_are_refused_at_either_end(name: str, step: LocalStep, said: str) -> None:
    options = AlgorithmOptions(name)
    with pytest.raises(JobError, match=said):
        build_algorithm(options, torch.zeros(2), step)
    for ends in ((EdgeEnd(step, 1), EdgeEnd(STEP, 1)), (EdgeEnd(STEP, 1), EdgeEnd(step, 1))):
        with pytest.raises(JobError, match=said):
            edge_terms(options, *ends)


def test_an_end_without_neighbours_is_no_end() -> None:
    with pytest.raises(JobError, match="at least 1 neighbour, not 0"):
        edge_terms(AlgorithmOptions(), EdgeEnd(STEP, 1), EdgeEnd(STEP, 0))


@pytest.mark.parametrize("primal", [torch.zeros(2, 2), torch.zeros(4)[::2], torch.zeros(2, dtype=torch.int64)])
def test_the_primal_is_flat_and_real(primal: Tensor) -> None:
    with pytest.raises(AlgorithmError, match="flat contiguous"):
        build_algorithm(AlgorithmOptions(), primal, STEP)


# Terms of an edge


def test_terms_of_each_algorithm() -> None:
    hub, leaf = EdgeEnd(LocalStep(0.1, 5), 3), EdgeEnd(LocalStep(0.2, 3), 1)
    options = {"averaging": 0.5, "penalty_scale": 3.0, "gamma_scale": 0.25}
    longest = max(0.1 * 4, 0.2 * 2)
    wanted = {
        "ecl": EdgeTerms(1.0, 0.5),
        "ecl-isvr": EdgeTerms(3.0 / (longest * 3), 0.5),
        "c-ecl": EdgeTerms(3.0 / (0.2 * (3 / 0.1 - 1) * 3), 0.5),
        "sm-ecl": EdgeTerms(1 / (0.25 * 7 * 0.2 * 2), 0.5),
        "gossip": EdgeTerms(),
        "dpsgd": EdgeTerms(averaging=1 / 4),
        "dpsgd-every-step": EdgeTerms(averaging=1 / 4),
        "gradient-tracking": EdgeTerms(averaging=1 / 4),
        "local": EdgeTerms(),
    }
    for name, terms in wanted.items():
        assert edge_terms(AlgorithmOptions(name, **options), hub, leaf) == terms
    assert edge_terms(AlgorithmOptions("ecl", penalty=0.25), hub, leaf).penalty == 0.25


end = st.builds(
    EdgeEnd,
    st.builds(LocalStep, st.floats(1e-6, 10), st.integers(2, 100)),
    st.integers(1, 50),
)


@given(ours=end, theirs=end, name=st.sampled_from(algorithm_names()))
@settings(max_examples=60, deadline=None)
def test_both_ends_compute_the_same_terms_to_the_last_bit(ours: EdgeEnd, theirs: EdgeEnd, name: str) -> None:
    options = AlgorithmOptions(name)
    assert edge_terms(options, ours, theirs) == edge_terms(options, theirs, ours)


# Order of use


@pytest.mark.parametrize("name", algorithm_names())
def test_a_message_needs_a_step_after_what_was_absorbed(name: str) -> None:
    algorithm = build(name, "a", "b")
    assert set(algorithm.outgoing("a")) == set(algorithm.parts)
    algorithm.absorb("a", message_like(algorithm, 0.5))
    for neighbour in ("a", "b"):
        with pytest.raises(AlgorithmError, match="needs a local step"):
            algorithm.outgoing(neighbour)
    algorithm.local_step(torch.ones(3, dtype=torch.float64))
    algorithm.outgoing("a")


@pytest.mark.parametrize("name", algorithm_names())
def test_membership_is_checked(name: str) -> None:
    algorithm = build(name, "a")
    with pytest.raises(AlgorithmError, match="an edge with a already"):
        algorithm.add_neighbour("a", TERMS)
    calls: list[Callable[[], object]] = [
        lambda: algorithm.outgoing("b"),
        lambda: algorithm.absorb("b", message_like(algorithm, 0)),
        lambda: algorithm.remove_neighbour("b"),
        lambda: algorithm.change_epoch("b", TERMS),
    ]
    for call in calls:
        with pytest.raises(AlgorithmError, match="no edge with b"):
            call()
    algorithm.remove_neighbour("a")
    algorithm.add_neighbour("a", TERMS)


@pytest.mark.parametrize("terms", [EdgeTerms(-1.0), EdgeTerms(math.nan), EdgeTerms(1.0, 0.0), EdgeTerms(1.0, 2.0)])
def test_impossible_terms_are_refused(terms: EdgeTerms) -> None:
    algorithm = build("ecl", "a")
    with pytest.raises(AlgorithmError, match="impossible terms"):
        algorithm.add_neighbour("b", terms)
    with pytest.raises(AlgorithmError, match="impossible terms"):
        algorithm.change_epoch("a", terms)
    with pytest.raises(AlgorithmError, match="no edge with b"):
        algorithm.outgoing("b")


@pytest.mark.parametrize("name", SENDING)
def test_messages_that_do_not_fit_change_nothing(name: str) -> None:
    algorithm = build(name, "a")
    part = algorithm.parts[0]
    wrong: list[Mapping[str, Tensor]] = [
        {},
        {"other": torch.zeros(3, dtype=torch.float64)},
        {part: torch.zeros(4, dtype=torch.float64)},
        {part: torch.zeros(3, dtype=torch.float32)},
    ]
    before = algorithm.primal.clone()
    for message in wrong:
        with pytest.raises(AlgorithmError, match="the message from a"):
            algorithm.absorb("a", message)
    assert torch.equal(algorithm.primal, before)
    algorithm.outgoing("a")


@pytest.mark.parametrize("name", SENDING)
def test_messages_share_no_memory_with_the_algorithm(name: str) -> None:
    algorithm = build(name, "a")
    part = algorithm.parts[0]
    sent = algorithm.outgoing("a")
    kept = sent[part].clone()
    taken = message_like(algorithm, 4.0)
    algorithm.absorb("a", taken)
    taken[part].zero_()
    twin = build(name, "a")
    twin.absorb("a", message_like(twin, 4.0))
    for either in (algorithm, twin):
        either.local_step(torch.ones(3, dtype=torch.float64))
    assert torch.equal(sent[part], kept)
    assert torch.equal(algorithm.primal, twin.primal)


@pytest.mark.parametrize("name", algorithm_names())
def test_a_step_changes_the_primal_in_place_and_leaves_the_gradient(name: str) -> None:
    algorithm = build(name, "a")
    primal, gradient = algorithm.primal, torch.ones(3, dtype=torch.float64)
    before = primal.clone()
    algorithm.local_step(gradient)
    assert algorithm.primal is primal
    assert (primal < before).all()
    assert torch.equal(gradient, torch.ones(3, dtype=torch.float64))


# Edges that come, go and change


@pytest.mark.parametrize("name", ANCHORED)
def test_a_new_edge_pulls_nowhere(name: str) -> None:
    algorithm = build(name, "a")
    stir(algorithm, ("a",))
    algorithm.add_neighbour("b", TERMS)
    assert torch.allclose(algorithm.outgoing("b")["message"], algorithm.primal, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ANCHORED)
def test_an_edge_that_is_gone_pulls_no_more(name: str) -> None:
    algorithm, alone = build(name, "a"), build(name)
    algorithm.absorb("a", message_like(algorithm, 100.0))
    algorithm.remove_neighbour("a")
    for _ in range(5):
        for either in (algorithm, alone):
            either.local_step(either.primal.clone())
    assert torch.equal(algorithm.primal, alone.primal)


def test_a_new_epoch_keeps_the_anchor_and_takes_the_penalty() -> None:
    algorithm = build("ecl", "a")
    algorithm.absorb("a", message_like(algorithm, 5.0))
    algorithm.local_step(torch.zeros(3, dtype=torch.float64))
    before = algorithm.primal.clone()
    algorithm.change_epoch("a", EdgeTerms(penalty=1 / STEP.rate))
    algorithm.local_step(torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(algorithm.primal, (before + 5.0) / 2)


@pytest.mark.parametrize("name", ANCHORED)
def test_without_neighbours_it_descends_by_itself(name: str) -> None:
    algorithm = build(name)
    for _ in range(4000):
        algorithm.local_step(algorithm.primal - 7.0)
    assert torch.allclose(algorithm.primal, torch.full_like(algorithm.primal, 7.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ANCHORED)
def test_an_edge_without_a_penalty_is_no_edge(name: str) -> None:
    algorithm, alone = build(name), build(name)
    algorithm.add_neighbour("a", EdgeTerms(penalty=0.0))
    algorithm.absorb("a", message_like(algorithm, 100.0))
    for either in (algorithm, alone):
        either.local_step(either.primal.clone())
    assert torch.equal(algorithm.primal, alone.primal)


@pytest.mark.parametrize("name", ANCHORED)
def test_rounding_is_no_weight_decay(name: str) -> None:
    """Sites that agree and have no gradient stay where they are to the last bit, whatever the weights."""
    algorithm = build(name, "a", "b", "c", dtype=torch.float32)
    algorithm.primal.mul_(0.1)
    algorithm = build_algorithm(AlgorithmOptions(name), algorithm.primal, STEP)
    for neighbour, penalty in {"a": 0.3, "b": 0.7, "c": 1.1}.items():
        algorithm.add_neighbour(neighbour, EdgeTerms(penalty=penalty))
    before = algorithm.primal.clone()
    for _ in range(100):
        algorithm.local_step(torch.zeros_like(before))
    assert torch.equal(algorithm.primal, before)


def test_sm_ecl_lets_anchors_ride_along_only_while_their_edge_is_fresh() -> None:
    algorithm = build("sm-ecl", "a")
    slope = torch.ones(3, dtype=torch.float64)
    for _ in range(40):
        algorithm.absorb("a", message_like(algorithm, 0.0))
        for _ in range(STEP.steps):
            algorithm.local_step(slope)
    ridden = []
    for _ in range(40):
        before = algorithm.state()["anchor/a"]
        algorithm.local_step(slope)
        ridden.append(not torch.equal(algorithm.state()["anchor/a"], before))
    # The last of 40 messages came after 156 steps: the interval is 164 / 42, and the silence, which is 4 steps
    # old already, outlasts five of those after the 16th of the steps that follow.
    assert ridden == [number < 16 for number in range(40)]
    assert float(algorithm.state()["horizon"]) == 20 * TERMS.averaging * (164 / 42)


def test_a_late_sm_ecl_moves_gently_where_one_of_the_beginning_takes_long_steps() -> None:
    gradient = torch.ones(3, dtype=torch.float64)
    first, late = build("sm-ecl", "a"), build("sm-ecl")
    late.begin_at(first.primal + 5)
    late.add_neighbour("a", TERMS)
    restored = build("sm-ecl", "a")
    restored.primal.copy_(late.primal)
    restored.load_state(late.state())
    moves = []
    for algorithm in (first, late, restored):
        before = algorithm.primal.clone()
        algorithm.local_step(gradient)
        moves.append(before - algorithm.primal)
    assert torch.equal(moves[1], moves[2])
    torch.testing.assert_close(moves[1], gradient / TERMS.penalty / 2 / 48)
    assert float((moves[0] / moves[1]).min()) > 48 * 2.9


def test_sm_ecl_begins_to_ride_slowly_also_where_it_was_restored() -> None:
    algorithm = build("sm-ecl", "a")
    slope = torch.ones(3, dtype=torch.float64)
    restored = build("sm-ecl", "a")
    for step in range(1, 300):
        if step % STEP.steps == 1:
            algorithm.absorb("a", message_like(algorithm, 0.0))
        before = algorithm.state()
        restored.load_state(before)
        restored.primal.copy_(algorithm.primal)
        for either in (algorithm, restored):
            either.local_step(slope)
            after = either.state()
            ridden = after["anchor/a"] - before["anchor/a"]
            part = step / (step + float(after["horizon"]))
            torch.testing.assert_close(ridden, 0.9 * part * before["velocity"])
        assert torch.equal(restored.primal, algorithm.primal)
    assert part > 0.75


@pytest.mark.parametrize("messages", [0, 1, 3, 50])
def test_sm_ecl_gates_a_neighbour_gone_for_ever_however_few_its_messages(messages: int) -> None:
    algorithm = build("sm-ecl", "gone", "there")
    slope = torch.ones(3, dtype=torch.float64)
    ridden = []
    for number in range(messages + 30):
        algorithm.absorb("there", message_like(algorithm, 0.0))
        if number < messages:
            algorithm.absorb("gone", message_like(algorithm, 0.0))
        for _ in range(STEP.steps):
            before = algorithm.state()["anchor/gone"]
            algorithm.local_step(slope)
            ridden.append(not torch.equal(algorithm.state()["anchor/gone"], before))
    # A message per round: the interval is K, but for the last having come at the round's beginning.
    arrived = max(0, messages - 1) * STEP.steps
    interval = (arrived + 2 * STEP.steps) / (2 + messages)
    still = arrived + math.floor(5 * interval) + 1
    assert all(ridden[1:still])  # at the first step the velocity is zero
    assert not any(ridden[still:])
    assert torch.isfinite(algorithm.primal).all()


def test_sm_ecl_reaches_further_in_layers_of_greater_norm() -> None:
    primal = torch.tensor([3.0, 4.0, 0.0, 0.0, 5.0], dtype=torch.float64)
    thirds = [Layer(2), Layer(2), Layer(1)]
    assert reach(primal, thirds).tolist() == [1.5, 1.5, 0.01, 0.01, 1.5]  # squares 25, 0, 25
    assert reach(primal, [Layer(5)]).tolist() == [1.0] * 5
    assert reach(torch.zeros(5), thirds).tolist() == [1.0] * 5


def test_sm_ecl_does_not_reach_further_for_a_norm() -> None:
    primal = torch.tensor([3.0, 4.0, 6.0, 8.0, 3.0], dtype=torch.float64)  # squares 25, 100, 9
    layers = [Layer(2), Layer(2, matrix=False), Layer(1)]
    assert reach(primal, layers).tolist() == [25 / 17, 25 / 17, 1.0, 1.0, 9 / 17]
    small = primal.mul(torch.tensor([1, 1, 0.1, 0.1, 1]))
    assert reach(small, layers).tolist() == pytest.approx([25 / 17, 25 / 17, 1 / 17, 1 / 17, 9 / 17])
    assert reach(primal, [Layer(5, matrix=False)]).tolist() == [1.0] * 5


def test_sm_ecl_rides_along_again_with_a_neighbour_that_returns() -> None:
    algorithm = build("sm-ecl", "back")
    slope = torch.ones(3, dtype=torch.float64)
    for _ in range(100):
        algorithm.local_step(slope)
    still = algorithm.state()["anchor/back"]
    algorithm.absorb("back", message_like(algorithm, 0.0))
    taken = algorithm.state()["anchor/back"]
    algorithm.local_step(slope)
    assert not torch.equal(still, taken)
    assert not torch.equal(taken, algorithm.state()["anchor/back"])


# State


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", algorithm_names())
def test_a_restored_state_goes_on_bit_identically(name: str, dtype: torch.dtype) -> None:
    neighbours = ("c", "a", "b")
    original = build(name, *neighbours, dim=50, dtype=dtype)
    stir(original, neighbours)
    state = original.state()
    restored = build(name, *sorted(neighbours), dim=50, dtype=dtype)
    restored.primal.copy_(original.primal)
    restored.load_state(state)
    assert all(torch.equal(tensor, state[key]) for key, tensor in restored.state().items())
    assert all(torch.equal(restored.outgoing("b")[part], original.outgoing("b")[part]) for part in original.parts)
    for algorithm in (original, restored):
        stir(algorithm, neighbours, rounds=30, seed=1)
    assert torch.equal(original.primal, restored.primal)
    assert restored.state().keys() == original.state().keys()
    assert all(torch.equal(tensor, restored.state()[key]) for key, tensor in original.state().items())


@pytest.mark.parametrize("name", ANCHORED)
def test_a_state_is_a_copy(name: str) -> None:
    algorithm = build(name, "a")
    stir(algorithm, ("a",))
    state = algorithm.state()
    kept = {key: tensor.clone() for key, tensor in state.items()}
    stir(algorithm, ("a",))
    assert all(torch.equal(tensor, kept[key]) for key, tensor in state.items())


@pytest.mark.parametrize("name", ANCHORED)
def test_a_state_that_does_not_fit_changes_nothing(name: str) -> None:
    algorithm = build(name, "a", "b")
    stir(algorithm, ("a", "b"))
    before = algorithm.state()
    other = build(name, "a", "b")
    stir(other, ("a", "b"), seed=5)
    good = other.state()
    wrong = [
        {},
        {**good, "more": torch.zeros(1)},
        {**good, "anchor/b": torch.zeros(4, dtype=torch.float64)},
        {**good, "anchor/b": torch.zeros(3, dtype=torch.float32)},
    ]
    for state in wrong:
        with pytest.raises(AlgorithmError, match=r"of the state is|the state holds"):
            algorithm.load_state(state)
    assert all(torch.equal(tensor, before[key]) for key, tensor in algorithm.state().items())


# What a site can tell of its neighbour


def test_the_neighbours_model_follows_from_two_messages() -> None:
    ours, theirs = build("ecl", "them"), build("ecl", "us")
    theirs.local_step(torch.full((3,), 4.0, dtype=torch.float64))
    theirs.remove_neighbour("us")
    theirs.add_neighbour("us", EdgeTerms(penalty=2.0))
    first = ours.neighbour_model(theirs.outgoing("us"), None)
    assert first is not None
    assert torch.allclose(first, theirs.primal), "over a new edge one message says it"
    sent = ours.outgoing("them")
    theirs.absorb("us", sent)
    theirs.local_step(torch.full((3,), -2.0, dtype=torch.float64))
    found = ours.neighbour_model(theirs.outgoing("us"), sent)
    assert found is not None
    assert torch.allclose(found, theirs.primal)


def test_gossip_sends_its_model_and_local_nothing() -> None:
    gossip = build("gossip", "a")
    found = gossip.neighbour_model(message_like(gossip, 3.0), None)
    assert found is not None
    assert torch.equal(found, message_like(gossip, 3.0)["model"])
    assert build("local", "a").neighbour_model({}, None) is None


# Cost


def allocated(algorithm: Algorithm, dim: int) -> int:
    """Bytes that tensors took during one step right after a message from every neighbour."""
    gradient = torch.ones(dim)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        algorithm.local_step(gradient)
    return sum(max(event.self_cpu_memory_usage, 0) for event in record.events())


@pytest.mark.parametrize("name", algorithm_names())
def test_a_step_allocates_nothing_however_many_neighbours(name: str) -> None:
    dim = 10_000
    neighbours = [f"N{number}" for number in range(16)]
    algorithm = build(name, *neighbours, dim=dim, dtype=torch.float32)
    for neighbour in neighbours:
        algorithm.absorb(neighbour, message_like(algorithm, 1.0))
    assert allocated(algorithm, dim) < dim
