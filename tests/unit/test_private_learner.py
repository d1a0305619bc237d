"""Private gradients: the bound of each sample, the noise, honest sampling, and what must never be seen of a sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from concord.errors import CheckpointError, TaskError
from concord.learning.accountant import Mechanism
from concord.learning.ledger import Ledger
from concord.learning.models import small_cnn
from concord.learning.objectives import LOSSES, METRICS
from concord.learning.privacy import PrivacyOptions
from concord.learning.private import PoissonBatches, PrivateLearner, SampleGradients, clip_each
from concord.learning.randomness import Randomness, SeededRandomness, SystemRandomness, normal
from concord.learning.samples import Samples
from concord.learning.steps import GradientOptions, Learner
from concord.learning.task import Task


class NoNoise:
    """Draws every sample, and noise of length zero."""

    def uniform(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.float64)


def make_task(build: Callable[[], nn.Module]) -> Task:
    return Task("test", build, LOSSES["cross_entropy"], {"accuracy": METRICS["accuracy"]})


def make_samples(count: int = 40) -> Samples:
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return Samples(inputs, (inputs[:, 0] > 0).long())


def make_learner(
    privacy: PrivacyOptions | None = None,
    options: GradientOptions | None = None,
    samples: Samples | None = None,
    build: Callable[[], nn.Module] = lambda: nn.Linear(4, 2),
    source: Randomness | None = None,
    ledger: Ledger | None = None,
) -> PrivateLearner:
    task = make_task(build)
    return PrivateLearner(
        task.new_model(0),
        task,
        make_samples() if samples is None else samples,
        options or GradientOptions(batch_size=8),
        privacy or PrivacyOptions(1.0, target_delta=1e-3),
        ledger or Ledger(),
        source or SeededRandomness(1),
    )


# --- clipping ----------------------------------------------------------------------------------------------------

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(deadline=None)
@given(
    rows=st.integers(1, 5).flatmap(
        lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=6)
    ),
    bound=st.floats(1e-3, 1e3),
)
def test_no_sample_ever_adds_more_than_the_bound(rows: list[list[float]], bound: float) -> None:
    clipped = clip_each(torch.tensor(rows, dtype=torch.float32), bound)
    for given_row, row in zip(rows, clipped.tolist(), strict=True):
        assert math.hypot(*row) <= bound
        if not all(map(math.isfinite, given_row)):
            assert row == [0.0] * len(row)
        elif math.hypot(*given_row) <= bound * (1 - 1e-6):
            assert row == given_row
        elif math.hypot(*given_row) > bound:
            assert math.isclose(math.hypot(*row), bound, rel_tol=1e-5)


def test_the_gradient_of_each_sample_is_the_one_that_autograd_finds_for_it_alone() -> None:
    module = nn.Sequential(small_cnn(1, 8, 3, 4))
    torch.manual_seed(0)
    batch = Samples(torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 1, 0]))
    flat = torch.cat([one.detach().flatten() for one in module.parameters()])
    found = SampleGradients(module, LOSSES["cross_entropy"]).compute(flat, batch)
    for index in range(5):
        module.zero_grad()
        one = batch.select(torch.tensor([index]))
        LOSSES["cross_entropy"](module(one.inputs), one.targets).backward()  # type: ignore[no-untyped-call]
        alone = torch.cat([one.grad.flatten() for one in module.parameters() if one.grad is not None])
        assert torch.allclose(found[index], alone, atol=1e-5)


def test_without_noise_and_with_a_wide_bound_the_gradient_is_the_usual_one() -> None:
    private = make_learner(
        PrivacyOptions(1e-9, max_grad_norm=1e6, target_delta=1e-3), GradientOptions(batch_size=40), source=NoNoise()
    )
    usual = Learner(
        make_task(lambda: nn.Linear(4, 2)).new_model(0),
        make_task(lambda: nn.Linear(4, 2)),
        make_samples(),
        GradientOptions(batch_size=40),
        0,
    )
    private.compute_gradient()
    usual.compute_gradient()
    assert torch.allclose(private.gradient, usual.gradient, atol=1e-6)


def test_one_sample_moves_the_sum_by_no_more_than_the_bound_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = make_samples()
    samples.inputs[7] *= 1e6
    samples.inputs[8] = math.nan
    gradients = SampleGradients(nn.Linear(4, 2), LOSSES["cross_entropy"])
    flat = torch.randn(10)
    whole = gradients.clipped_sum(flat, samples, 0.5)
    for index in range(len(samples)):
        others = samples.select(torch.tensor([other for other in range(len(samples)) if other != index]))
        assert (gradients.clipped_sum(flat, others, 0.5) - whole).norm() <= 0.5
    monkeypatch.setattr("concord.learning.private.NUMBERS_AT_ONCE", 30)  # three samples at a time
    assert torch.allclose(gradients.clipped_sum(flat, samples, 0.5), whole, atol=1e-12)


# --- noise and sampling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [SystemRandomness(), SeededRandomness(3)])
def test_the_noise_is_normal(source: Randomness) -> None:
    drawn = normal(source, 400_001)
    assert drawn.shape == (400_001,)
    # Six deviations of each estimate: odds of one in half a milliard.
    assert abs(float(drawn.mean())) < 6 / math.sqrt(400_000)
    assert abs(float(drawn.var()) - 1) < 6 * math.sqrt(2 / 400_000)
    assert abs(float((drawn**4).mean()) - 3) < 6 * math.sqrt(96 / 400_000)
    assert abs(float((drawn.abs() < 1).double().mean()) - math.erf(1 / math.sqrt(2))) < 6 * 0.466 / math.sqrt(400_000)
    assert abs(float((drawn[:200_000] * drawn[200_000:400_000]).mean())) < 6 / math.sqrt(200_000)


def test_the_deviation_of_a_gradient_is_noise_times_bound_over_the_batch() -> None:
    wide = lambda: nn.Linear(4, 20_000)  # noqa: E731
    privacy = PrivacyOptions(noise_multiplier=3.0, max_grad_norm=0.5, target_delta=1e-3)
    learner = make_learner(privacy, GradientOptions(batch_size=8), build=wide, source=SystemRandomness())
    result = learner.compute_gradient()
    expected = 3.0 * 0.5 / 8
    assert math.isclose(float(learner.gradient.std()), expected, rel_tol=0.02)
    assert (result.loss, result.samples, result.finite) == (None, 8, True)


def test_each_sample_enters_a_batch_by_a_coin_of_its_own() -> None:
    samples = Samples(torch.arange(50.0).unsqueeze(1), torch.arange(50))
    batches = PoissonBatches(samples, 10, SystemRandomness())
    drawn = [batches.draw().targets for _ in range(4000)]
    sizes = torch.tensor([float(len(batch)) for batch in drawn])
    counts = torch.bincount(torch.cat(drawn), minlength=50).double()
    assert all(len(batch.unique()) == len(batch) for batch in drawn)
    assert abs(float(sizes.mean()) - 10) < 6 * math.sqrt(8 / 4000)
    assert abs(float(sizes.var()) - 8) < 6 * 8 * math.sqrt(2 / 4000)  # binomial, where a shuffle would give 0
    assert float((counts - 800).abs().max()) < 6 * math.sqrt(640)


def test_a_batch_that_nobody_entered_is_noise_alone() -> None:
    batches = PoissonBatches(make_samples(1000), 1, SystemRandomness())
    assert min(len(batches.draw()) for _ in range(30)) == 0
    total = SampleGradients(nn.Linear(4, 2), LOSSES["cross_entropy"]).clipped_sum(
        torch.zeros(10), make_samples().select(torch.tensor([], dtype=torch.int64)), 1.0
    )
    assert total.tolist() == [0.0] * 10


def test_steps_that_are_done_again_after_a_restart_get_other_batches_and_other_noise() -> None:
    first = make_learner(source=SystemRandomness())
    state = first.state()
    first.compute_gradient()
    before = first.gradient.clone()
    first.load_state(state)
    first.compute_gradient()
    assert not torch.equal(before, first.gradient)


def test_a_simulation_repeats_itself() -> None:
    def gradients() -> Tensor:
        learner = make_learner()
        return torch.stack([(learner.compute_gradient(), learner.gradient.clone())[1] for _ in range(5)])

    assert torch.equal(gradients(), gradients())


# --- what is refused -------------------------------------------------------------------------------------------------


class Keeps(nn.Module):
    """Remembers the mean of what it has seen."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + inputs.mean()
        return self.linear(inputs)


class Looks(nn.Linear):
    """Looks into the values of its inputs."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs if float(inputs.sum()) > 0 else -inputs)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
            "BatchNorm1d (1) mixes the samples",
        ),
        (Keeps, "keeps something of the samples in its buffer 'seen'"),
        (lambda: Looks(4, 2), "cannot be taken sample by sample"),
    ],
)
def test_a_model_that_would_tell_of_samples_without_noise_is_refused(
    build: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(TaskError) as caught:
        make_learner(build=build)
    assert message in str(caught.value)


def test_a_delta_that_would_allow_a_whole_sample_to_be_told_is_refused() -> None:
    with pytest.raises(TaskError, match=r"target_delta: 0\.025 must be less than 1/40"):
        make_learner(PrivacyOptions(1.0, target_delta=1 / 40))


def test_a_private_batch_is_for_nobody_else() -> None:
    learner = make_learner()
    with pytest.raises(NotImplementedError):
        learner.draw()
    with pytest.raises(NotImplementedError):
        learner.compute_gradient_on(make_samples())


# --- the count -------------------------------------------------------------------------------------------------------


def test_every_gradient_counts_and_the_budget_ends_them() -> None:
    privacy = PrivacyOptions(2.0, target_delta=1e-3, target_epsilon=3.0)
    learner = make_learner(privacy)
    steps = 0
    while learner.affords(1):
        learner.compute_gradient()
        steps += 1
    status = learner.privacy()
    assert status.steps == steps > 5
    assert status.epsilon is not None
    assert status.epsilon <= 3.0
    learner.ledger.spend(Mechanism(2.0, 0.2))
    over = learner.privacy().epsilon
    assert over is not None
    assert over > 3.0


def test_going_back_to_an_earlier_model_gives_nothing_back() -> None:
    learner = make_learner()
    state = learner.state()
    for _ in range(3):
        learner.compute_gradient()
    learner.load_model(state)
    learner.load_state(state)
    assert learner.privacy().steps == 3


def test_a_checkpoint_without_a_count_is_not_gone_on_from(tmp_path: Path) -> None:
    state = make_learner().state()
    with pytest.raises(CheckpointError, match=r"no privacy\.json beside it"):
        make_learner(ledger=Ledger(tmp_path)).load_state(state)


def test_privacy_cannot_be_put_on_or_off_over_a_checkpoint() -> None:
    task = make_task(lambda: nn.Linear(4, 2))
    usual = Learner(task.new_model(0), task, make_samples(), GradientOptions(batch_size=8), 0)
    with pytest.raises(CheckpointError, match="whether there is privacy"):
        make_learner().load_state(usual.state())
    with pytest.raises(CheckpointError, match="whether there is privacy"):
        usual.load_state(make_learner().state())
