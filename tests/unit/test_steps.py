"""The learner: right gradients, treated in the right order, honest batches, a resume that changes no bit."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from concord.errors import CheckpointError, TaskError
from concord.learning.objectives import accuracy
from concord.learning.pooled import train_pooled
from concord.learning.samples import Pool, Samples
from concord.learning.steps import Batches, GradientOptions, Learner, StepResult, rehearse
from concord.learning.task import Task


def make_task(build_model: Callable[[], nn.Module]) -> Task:
    return Task("test", build_model, nn.functional.cross_entropy, {"accuracy": accuracy})


def make_samples(count: int = 40, seed: int = 0) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    return Samples(inputs, (inputs[:, 0] > 0).long())


def make_learner(
    options: GradientOptions | None = None,
    samples: Samples | None = None,
    module: nn.Module | None = None,
    seed: int = 1,
) -> Learner:
    task = make_task(lambda: module or nn.Linear(4, 2))
    options = options or GradientOptions(batch_size=8)
    return Learner(task.new_model(0), task, make_samples() if samples is None else samples, options, seed)


def train(learner: Learner, steps: int) -> list[StepResult]:
    results = []
    for _ in range(steps):
        results.append(learner.compute_gradient())
        learner.primal.add_(learner.gradient, alpha=-0.1)
    return results


def whole_gradient(learner: Learner, samples: Samples) -> Tensor:
    """The loss gradient over all samples by plain autograd, on separate weights."""
    weight = learner.primal[:8].view(2, 4).clone().requires_grad_()
    bias = learner.primal[8:].clone().requires_grad_()
    loss = nn.functional.cross_entropy(samples.inputs @ weight.T + bias, samples.targets)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, [weight, bias])])


def test_a_shard_smaller_than_the_batch_is_used_whole() -> None:
    samples = make_samples(5)
    learner = make_learner(GradientOptions(batch_size=32), samples)
    result = learner.compute_gradient()
    assert result.samples == 5
    assert result.finite
    assert torch.allclose(learner.gradient, whole_gradient(learner, samples), atol=1e-6)


def test_each_gradient_replaces_the_one_before() -> None:
    samples = make_samples(5)
    learner = make_learner(samples=samples)
    learner.compute_gradient()
    learner.compute_gradient()
    assert torch.allclose(learner.gradient, whole_gradient(learner, samples), atol=1e-6)


def test_weight_decay_then_clip_then_momentum() -> None:
    samples = make_samples(5)
    learner = make_learner(GradientOptions(momentum=0.75, weight_decay=0.5, clip=0.1), samples)
    velocity = torch.zeros_like(learner.primal)
    for _ in range(3):
        expected = whole_gradient(learner, samples) + 0.5 * learner.primal
        expected *= min(1.0, 0.1 / float(expected.norm()))
        velocity = 0.75 * velocity + 0.25 * expected
        train(learner, 1)
        assert torch.allclose(learner.gradient, velocity, atol=1e-6)
    assert float(learner.gradient.norm()) <= 0.1


def test_a_gradient_shorter_than_the_clip_stays() -> None:
    samples = make_samples(5)
    learner = make_learner(GradientOptions(clip=1e6), samples)
    learner.compute_gradient()
    assert torch.allclose(learner.gradient, whole_gradient(learner, samples), atol=1e-6)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_reported_and_forgotten(poison: float) -> None:
    learner = make_learner(GradientOptions(momentum=0.5))
    train(learner, 3)
    healthy = learner.primal.clone()
    momentum = learner.state()["momentum"]
    learner.primal[0] = poison
    assert not learner.compute_gradient().finite
    assert torch.equal(learner.state()["momentum"], momentum)
    learner.primal.copy_(healthy)
    assert learner.compute_gradient().finite


def test_an_epoch_holds_every_sample_once_in_a_new_order_each_time() -> None:
    samples = Samples(torch.arange(12.0)[:, None], torch.arange(12))
    batches = Batches(samples, 4, seed=0)
    epochs = [torch.cat([batches.draw().targets for _ in range(3)]).tolist() for _ in range(4)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_all_batches_are_of_one_size_and_reach_every_sample() -> None:
    samples = Samples(torch.arange(10.0)[:, None], torch.arange(10))
    batches = Batches(samples, 4, seed=0)
    drawn = [batches.draw().targets for _ in range(30)]
    assert {len(targets) for targets in drawn} == {4}
    assert set(torch.cat(drawn).tolist()) == set(range(10))


def test_a_state_from_before_the_first_batch_is_gone_on_from() -> None:
    samples = Samples(torch.arange(8.0)[:, None], torch.arange(8))
    fresh, resumed = Batches(samples, 4, seed=0), Batches(samples, 4, seed=1)
    resumed.load_state({**fresh.state(), "cursor": torch.tensor(0)})
    assert torch.equal(resumed.draw().targets, fresh.draw().targets)


def test_inputs_and_targets_stay_together() -> None:
    batches = Batches(Samples(torch.arange(10.0)[:, None], torch.arange(10)), 3, seed=0)
    for _ in range(10):
        batch = batches.draw()
        assert torch.equal(batch.inputs[:, 0].long(), batch.targets)


def test_the_seed_decides_the_batches_and_nothing_else_does() -> None:
    first, same, other = make_learner(seed=1), make_learner(seed=1), make_learner(seed=2)
    torch.manual_seed(99)
    losses = [[result.loss for result in train(learner, 10)] for learner in (first, same, other)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_no_samples_are_refused() -> None:
    with pytest.raises(TaskError, match="no samples to train on"):
        make_learner(samples=Samples(torch.empty(0, 4), torch.empty(0, dtype=torch.int64)))


def make_deep() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 2))


@pytest.mark.parametrize("steps_before", [0, 1, 7])
def test_a_resumed_learner_goes_on_bit_for_bit(steps_before: int) -> None:
    options = GradientOptions(batch_size=8, momentum=0.9, weight_decay=1e-3, clip=1.0)
    torch.manual_seed(5)
    learner = make_learner(options, module=make_deep())
    train(learner, steps_before)
    primal, state = learner.primal.clone(), learner.state()
    expected = train(learner, 12)

    torch.manual_seed(6)
    resumed = make_learner(options, module=make_deep(), seed=77)
    resumed.primal.copy_(primal)
    resumed.load_state(state)
    assert train(resumed, 12) == expected
    assert torch.equal(resumed.primal, learner.primal)
    for name, tensor in learner.state().items():
        assert torch.equal(resumed.state()[name], tensor), name


def test_a_resumed_learner_damps_as_before() -> None:
    def make() -> Learner:
        module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        return make_learner(GradientOptions(batch_size=8, mean_damping=0.1), module=module)

    learner = make()
    train(learner, 5)  # in between two looks at the mean inputs
    primal, state = learner.primal.clone(), learner.state()
    expected = train(learner, 20)
    resumed = make()
    resumed.primal.copy_(primal)
    resumed.load_state(state)
    assert train(resumed, 20) == expected
    assert torch.equal(resumed.primal, learner.primal)


def test_a_state_is_a_copy() -> None:
    learner = make_learner(GradientOptions(batch_size=8, momentum=0.9), module=make_deep())
    state = learner.state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    train(learner, 6)
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_going_back_to_a_model_leaves_the_batches_to_come() -> None:
    options = GradientOptions(batch_size=8, momentum=0.9)
    learner = make_learner(options, module=make_deep())
    train(learner, 2)
    old = learner.state()
    train(learner, 5)
    before = learner.state()
    learner.load_model(old)
    after = learner.state()
    assert torch.equal(after["momentum"], old["momentum"])
    assert torch.equal(after["buffer.1.running_mean"], old["buffer.1.running_mean"])
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("batches."))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: make_learner(GradientOptions(batch_size=8, momentum=0.9)), "momentum"),
        (lambda: make_learner(module=make_deep()), "buffer.1.running_mean"),
        (lambda: make_learner(samples=make_samples(39)), "40 training samples; there are 39"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_without_a_change(other: Callable[[], Learner], message: str) -> None:
    learner = make_learner()
    train(learner, 1)
    stranger = other()
    before = stranger.state()
    with pytest.raises(CheckpointError, match=message):
        stranger.load_state(learner.state())
    assert all(torch.equal(stranger.state()[name], tensor) for name, tensor in before.items())


def test_an_evaluation_uses_no_dropout_no_batch_statistics_and_leaves_no_trace() -> None:
    samples = make_samples(3000)
    learner = make_learner(module=make_deep(), samples=samples)
    train(learner, 30)
    before = learner.state()
    first, second = learner.evaluate(samples), learner.evaluate(samples)
    assert first == second
    assert learner.module.training
    assert all(torch.equal(learner.state()[name], tensor) for name, tensor in before.items())
    learner.module.eval()
    with torch.no_grad():
        outputs = learner.module(samples.inputs)
    assert first.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, samples.targets)), rel=1e-5)
    assert first.metrics["accuracy"] == pytest.approx(float((outputs.argmax(1) == samples.targets).float().mean()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1.0),
        ("clip", 0.0),
        ("mean_damping", 0.0),
    ],
)
def test_options_out_of_range_name_the_range(field: str, value: float) -> None:
    with pytest.raises(TaskError, match=f"{field}: {value} must be "):
        GradientOptions(**{field: value})


def test_a_rehearsal_says_what_does_not_fit() -> None:
    samples = make_samples()
    rehearse(make_task(lambda: nn.Linear(4, 2)), samples)
    with pytest.raises(TaskError, match=r"task 'test' do not fit its data \(inputs \(40, 4\), targets \(40,\)\)"):
        rehearse(make_task(lambda: nn.Linear(5, 2)), samples)
    with pytest.raises(TaskError, match="no trainable parameters"):
        rehearse(make_task(nn.Identity), samples)


def test_a_rehearsal_leaves_torch_s_generator_alone() -> None:
    before = torch.get_rng_state()
    rehearse(make_task(lambda: nn.Linear(4, 2)), make_samples())
    assert torch.equal(torch.get_rng_state(), before)


def test_pooled_training_learns_and_repeats() -> None:
    task = make_task(lambda: nn.Linear(4, 2))
    pool = Pool(make_samples(200), make_samples(100, seed=1))
    curve = train_pooled(task, pool, 0.5, 250, GradientOptions(), seed=0, evaluate_every=100)
    assert [point.step for point in curve] == [0, 100, 200, 250]
    assert curve[-1].evaluation.metrics["accuracy"] > 0.95
    assert curve[-1].evaluation.loss < curve[0].evaluation.loss
    assert train_pooled(task, pool, 0.5, 250, GradientOptions(), seed=0, evaluate_every=100) == curve


def test_pooled_training_leaves_out_steps_that_are_not_finite() -> None:
    task = make_task(lambda: nn.Linear(4, 2))
    train_samples = make_samples(8)
    train_samples.inputs[0] = math.nan
    pool = Pool(train_samples, make_samples(10, seed=1))
    curve = train_pooled(task, pool, 0.5, 40, GradientOptions(batch_size=2), seed=0, evaluate_every=40)
    assert math.isfinite(curve[-1].evaluation.loss)
    assert curve[-1].evaluation.loss < curve[0].evaluation.loss
