"""Step sizes of each coordinate: against the formula written out, and to the bit after a restart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from concord.consensus.algorithm import Algorithm, EdgeEnd, LocalStep
from concord.consensus.preconditioner import DECAY, Preconditioner
from concord.consensus.registry import AlgorithmOptions, build_algorithm, edge_terms

GRADIENTS = ((1.0, -2.0, 0.0, 9.0), (0.5, 4.0, 0.0, -30.0), (2.0, 0.0, 0.0, 1.0))


def scales(preconditioner: Preconditioner, factor: float = 1.0) -> list[float]:
    for gradient in GRADIENTS:
        scale = preconditioner.scale(factor * torch.tensor(gradient, dtype=torch.float64))
    return [float(value) for value in scale]


def test_the_scale_is_that_of_the_formula() -> None:
    moments = [0.0] * 4
    for gradient in GRADIENTS:
        moments = [DECAY * v + (1 - DECAY) * g * g for v, g in zip(moments, gradient, strict=True)]
    mean = sum(math.sqrt(v) for v in moments) / 4
    wanted = [max(1.0, math.sqrt(v) / mean) for v in moments]
    assert scales(Preconditioner(torch.zeros(4, dtype=torch.float64))) == pytest.approx(wanted, rel=1e-12)
    assert max(wanted) > 2


@given(st.floats(1e-6, 1e6))
def test_a_factor_on_the_loss_changes_nothing(factor: float) -> None:
    plain, scaled = (Preconditioner(torch.zeros(4, dtype=torch.float64)) for _ in range(2))
    assert scales(scaled, factor) == pytest.approx(scales(plain), rel=1e-9)


def test_without_any_gradient_all_step_alike() -> None:
    assert Preconditioner(torch.zeros(3)).scale(torch.zeros(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["ecl", "ecl-isvr", "c-ecl"])
@pytest.mark.parametrize("neighbours", [("N2", "N3"), ()])
def test_a_restored_site_steps_to_the_bit(name: str, neighbours: tuple[str, ...]) -> None:
    options, step = AlgorithmOptions(name, preconditioner="adam"), LocalStep(rate=0.1, steps=4)
    end = EdgeEnd(degree=2, step=step)

    def site() -> tuple[torch.Tensor, Algorithm]:
        primal = torch.linspace(-1, 1, 4)
        algorithm = build_algorithm(options, primal, step)
        for neighbour in neighbours:
            algorithm.add_neighbour(neighbour, edge_terms(options, end, end))
        return primal, algorithm

    (primal, algorithm), (restored, other) = site(), site()
    for gradient in GRADIENTS:
        algorithm.local_step(torch.tensor(gradient))
    restored.copy_(primal)
    other.load_state(algorithm.state())
    before = primal.clone()
    for pair in ((primal, algorithm), (restored, other)):
        pair[1].local_step(torch.tensor((3.0, 1.0, -7.0, 0.1)))
    assert torch.equal(primal, restored)
    assert not torch.equal(primal, before)


def test_a_large_gradient_moves_its_coordinate_less_than_without() -> None:
    moves = []
    for preconditioner in ("none", "adam"):
        primal = torch.zeros(4)
        options = AlgorithmOptions("ecl-isvr", preconditioner=preconditioner)
        algorithm = build_algorithm(options, primal, LocalStep(rate=0.1, steps=4))
        algorithm.local_step(torch.tensor((1.0, 1.0, 1.0, 21.0)))
        moves.append(primal.tolist())
    assert moves[0] == pytest.approx([-0.1, -0.1, -0.1, -2.1])
    assert moves[1] == pytest.approx([-0.1, -0.1, -0.1, -0.6])
