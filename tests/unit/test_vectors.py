"""Flat parameters: views, values, what is refused, and fingerprints."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from concord.consensus.vectors import Layer, bind, fingerprint
from concord.errors import TaskError


def make_mlp(hidden: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 2))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(tokens))


def test_binding_keeps_the_values_in_the_order_of_the_parameters() -> None:
    module = make_mlp()
    before = torch.cat([parameter.detach().clone().flatten() for parameter in module.parameters()])
    flat = bind(module)
    assert torch.equal(flat.primal, before)
    assert flat.primal.is_contiguous()
    assert not flat.primal.requires_grad
    assert torch.equal(flat.gradient, torch.zeros_like(before))


def test_a_change_of_the_primal_changes_the_module_and_the_other_way_round() -> None:
    module = make_mlp()
    flat = bind(module)
    flat.primal.fill_(2.0)
    assert all(bool((parameter == 2.0).all()) for parameter in module.parameters())
    with torch.no_grad():
        next(module.parameters()).fill_(3.0)
    assert torch.equal(flat.primal[:12], torch.full((12,), 3.0))


def test_backward_fills_the_flat_gradient_time_after_time() -> None:
    module, reference = make_mlp(), make_mlp()
    flat = bind(module)
    inputs = torch.randn(7, 4)
    for _ in range(2):
        flat.gradient.zero_()
        reference.zero_grad()
        module(inputs).square().mean().backward()
        reference(inputs).square().mean().backward()
        expected = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
        assert torch.equal(flat.gradient, expected)


def test_a_tied_parameter_appears_once_and_stays_tied() -> None:
    module = Tied()
    flat = bind(module)
    assert flat.primal.numel() == 15
    flat.primal.mul_(2.0)
    assert torch.equal(module.head.weight, module.embed.weight)


def test_what_belongs_to_one_module_is_one_layer_unless_it_stays_at_the_site() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 4, bias=False), nn.Linear(4, 1))
    layers = (Layer(8), Layer(4, matrix=False), Layer(8), Layer(5))
    assert bind(module).layers == bind(module).shared.layers == layers
    kept = bind(module, local=["0.weight", "3.*"])
    assert (kept.layers, kept.kept) == ((Layer(2, matrix=False), Layer(4, matrix=False), Layer(8)), 11)


def test_frozen_parameters_and_buffers_stay_outside() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    module[0].bias.requires_grad_(False)
    assert bind(module).primal.numel() == 12 + 6


def test_a_parameter_with_other_strides_keeps_its_values() -> None:
    module = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    before = module.weight.detach().clone()
    bind(module)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)])
def test_a_model_with_nothing_to_train_is_refused(module: nn.Module) -> None:
    with pytest.raises(TaskError, match="model has no trainable parameters"):
        bind(module)


def test_other_types_than_float32_are_refused_by_name() -> None:
    with pytest.raises(TaskError, match=r"'1\.weight' is float64: only float32"):
        bind(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))


def test_lazy_parameters_are_refused_by_name() -> None:
    with pytest.raises(TaskError, match="'weight' has no shape yet"):
        bind(nn.LazyLinear(2))


def test_the_fingerprint_depends_on_the_architecture_and_not_on_the_weights() -> None:
    module = make_mlp()
    before = fingerprint(module)
    bind(module).primal.normal_()
    assert fingerprint(module) == before
    assert len(before) == 32
    assert int(before, 16) >= 0


@pytest.mark.parametrize(
    "other",
    [
        make_mlp(hidden=5),
        nn.Sequential(nn.Linear(4, 3), nn.Identity(), nn.ReLU(), nn.Linear(3, 2)),
        make_mlp().double(),
        nn.Sequential(*make_mlp(), nn.BatchNorm1d(2, affine=False)),
        nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.ReLU(), nn.Linear(3, 2)),
    ],
    ids=["shape", "names", "dtype", "buffers", "frozen"],
)
def test_the_fingerprint_tells_architectures_apart(other: nn.Module) -> None:
    assert fingerprint(other) != fingerprint(make_mlp())


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    program = (
        "from torch import nn; from concord.consensus.vectors import fingerprint;"
        "print(fingerprint(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint(make_mlp())
