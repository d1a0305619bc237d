"""Damping along mean inputs: what is left of a gradient, where, and that no fixed point moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from concord.consensus.algorithm import LocalStep
from concord.consensus.graph import build_topology
from concord.consensus.registry import AlgorithmOptions
from concord.consensus.vectors import bind
from concord.errors import TaskError
from concord.learning.damping import PERIOD, MeanDamping, probes
from fleet import Fleet, Link, Pace

INPUTS = torch.zeros(3, 5)
PICTURES = torch.zeros(3, 2, 6, 6, dtype=torch.uint8)


class Scaled(nn.Module):
    """From bytes to numbers."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 255


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Softplus(), nn.Linear(7, 2))


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Scaled(), nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.Flatten())


def with_gradient(module: nn.Sequential) -> nn.Sequential:
    flat = bind(module)
    flat.gradient.copy_(torch.randn(flat.gradient.shape, generator=torch.Generator().manual_seed(1)))
    return module


def rows(layer: nn.Module) -> Tensor:
    """The gradient of weights and biases, one row for each output: a copy."""
    parts = [parameter.grad.reshape(len(parameter), -1) for parameter in layer.parameters()]
    return torch.cat(parts, dim=1).clone()


def check_damped(before: Tensor, after: Tensor, direction: Tensor, share: float) -> None:
    v = direction / direction.norm()
    assert torch.allclose(after @ v, share * (before @ v), atol=1e-5)
    rest = torch.eye(len(v)) - torch.outer(v, v)
    assert torch.allclose(after @ rest, before @ rest, atol=1e-5)
    assert not torch.allclose(after, before, atol=0.1)


def test_a_share_is_left_along_the_mean_input_and_all_of_it_elsewhere() -> None:
    module = with_gradient(network())
    mean = module[:2](probes(INPUTS)).mean(0).detach()
    before = rows(module[2])
    MeanDamping(module, INPUTS, 0.1).apply()
    check_damped(before, rows(module[2]), torch.cat([mean, torch.ones(1)]), 0.1)


def test_of_a_convolution_each_channel_has_one_mean() -> None:
    module = with_gradient(convolutions())
    means = module[:3](probes(PICTURES)).mean((0, 2, 3)).detach()
    pixels = module[0](probes(PICTURES)).mean((0, 2, 3))
    first, second = rows(module[1]), rows(module[3])
    MeanDamping(module, PICTURES, 0.25).apply()
    check_damped(second, rows(module[3]), torch.cat([means.repeat_interleave(4), torch.ones(1)]), 0.25)
    check_damped(first, rows(module[1]), pixels.repeat_interleave(9), 0.25)  # it has no bias


def test_a_share_of_one_changes_nothing() -> None:
    module = with_gradient(network())
    before = rows(module[2])
    MeanDamping(module, INPUTS, 1.0).apply()
    assert torch.equal(rows(module[2]), before)


def test_sites_that_agree_on_the_model_damp_alike_whatever_their_data() -> None:
    one, other = with_gradient(network()), with_gradient(network())
    MeanDamping(one, torch.randn(100, 5), 0.1).apply()
    MeanDamping(other, torch.randn(3, 5) + 7, 0.1).apply()
    assert torch.equal(rows(one[2]), rows(other[2]))


def test_what_does_not_learn_and_what_is_no_layer_of_this_kind_is_left_alone() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 2))
    module[2].weight.requires_grad_(False)
    with_gradient(module)
    norm, bias = rows(module[1]), module[2].bias.grad.clone()
    MeanDamping(module, INPUTS, 0.1).apply()
    assert torch.equal(rows(module[1]), norm)
    assert torch.equal(module[2].bias.grad, bias)


def test_a_weight_of_two_layers_is_damped_once() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 5, bias=False), nn.ReLU(), nn.Linear(5, 5, bias=False))
    module[2].weight = module[0].weight
    with_gradient(module)
    before = rows(module[0])
    MeanDamping(module, INPUTS, 0.1).apply()
    check_damped(before, rows(module[0]), probes(INPUTS).mean(0), 0.1)


def test_the_model_is_looked_at_again_after_a_while() -> None:
    module = with_gradient(network())
    damping = MeanDamping(module, INPUTS, 0.1)
    begin = damping.state()
    with torch.no_grad():
        module[0].bias.add_(10)
    for _ in range(PERIOD):
        damping.apply()
        assert torch.equal(damping.state()["direction.2"], begin["direction.2"])
    damping.apply()
    assert not torch.equal(damping.state()["direction.2"], begin["direction.2"])


def test_dropout_and_mode_are_as_before_a_look() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    bind(module)
    chance = torch.get_rng_state()
    MeanDamping(module, INPUTS, 0.1)
    assert module.training
    assert torch.equal(torch.get_rng_state(), chance)


@pytest.mark.parametrize(
    ("module", "inputs", "message"),
    [
        (
            lambda: nn.Sequential(nn.Linear(5, 2)),
            torch.zeros(3, 5, dtype=torch.int64),
            "bytes or floating.*found int64",
        ),
        (lambda: nn.Sequential(nn.LayerNorm(5)), INPUTS, "no linear layer or convolution"),
        (lambda: nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2)), INPUTS, "running averages"),
    ],
)
def test_what_cannot_be_damped_is_refused(module: Callable[[], nn.Module], inputs: Tensor, message: str) -> None:
    built = module()
    bind(built)
    with pytest.raises(TaskError, match=rf"^training\.mean_damping: .*{message}"):
        MeanDamping(built, inputs, 0.1)


def damped_gradient(site: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The gradient of one site's loss, damped and plain, of a network with one hidden layer; all data in each batch."""
    generator = torch.Generator().manual_seed(site)
    inputs = torch.randn(20, 5, generator=generator) + torch.randn(5, generator=generator)
    targets = torch.randn(20, 2, generator=generator)
    module = network()
    flat = bind(module)
    damping = MeanDamping(module, inputs, 0.3)

    def plain(primal: Tensor) -> Tensor:
        flat.primal.copy_(primal)
        flat.gradient.copy_(0.1 * flat.primal)
        nn.functional.mse_loss(module(inputs), targets).backward()
        return flat.gradient.clone()

    def damped(primal: Tensor) -> Tensor:
        plain(primal)
        damping.apply()
        return flat.gradient.clone()

    return damped, plain


def test_the_fixed_point_stays_where_the_sum_of_plain_gradients_vanishes() -> None:
    sites = ("N1", "N2")
    gradients = dict(zip(sites, map(damped_gradient, range(2)), strict=True))
    fleet = Fleet(
        build_topology("chain", sites),
        {site: damped for site, (damped, _) in gradients.items()},
        bind(network()).primal,
        AlgorithmOptions("ecl-isvr"),
        LocalStep(0.2, 8),
        Pace({"N2": 0.6}),
        Link(loss=0.2, delay=8),
    )
    fleet.run(7_000)
    models = fleet.models()
    own = [plain(models[0]) for _, plain in gradients.values()]
    assert float((models[0] - models[1]).norm()) < 1e-3
    assert float((own[0] + own[1]).norm()) < 1e-3
    assert min(float(one.norm()) for one in own) > 0.1
