"""FedAvg, FedProx and SCAFFOLD against where theory says they rest, and the driver that runs their rounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from concord.apps.simulation import build_experiment
from concord.consensus.algorithm import LocalStep
from concord.consensus.registry import AlgorithmOptions, build_client
from concord.consensus.server import Server
from concord.errors import JobError
from concord.job import parse_job
from concord.simulate.report import last_rows
from fleet import Quadratics

SITES = tuple("abcd")
DIM = 4
RATE, STEPS = 0.05, 5
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 0.5}
JOB = """
name: rounds
task: digits
sites: 4
algorithm: fedavg
training: {rounds: 20, pace: 0, local_steps: 8, batch_size: 32, learning_rate: 0.1}
simulation: {step_seconds: 0.01, evaluate_every: 0.5, network: {latency: 0.05}, sites: {N2: {speed: 0.5}}}
"""


@pytest.fixture(scope="module")
def problem() -> Quadratics:
    return Quadratics.draw(SITES, DIM, seed=5)


def rest_of(problem: Quadratics, name: str, rounds: int = 3000) -> Tensor:
    options = AlgorithmOptions(name, proximal=0.7)
    step = LocalStep(RATE, STEPS)
    clients = {site: build_client(options, torch.zeros(DIM, dtype=torch.float64), step) for site in SITES}
    server = Server(torch.zeros(DIM, dtype=torch.float64), clients["a"].parts)
    for _ in range(rounds):
        for site, client in clients.items():
            client.begin(server.tell())
            for _ in range(STEPS):
                client.local_step(problem.gradients[site](client.primal))
        server.combine([(WEIGHTS[site], client.report()) for site, client in clients.items()])
    return server.model


def resting_point(problem: Quadratics, spring: float) -> Tensor:
    """Where sum_i p_i (w_i - x) = 0: each client's K steps contract x - (own point) by a known matrix power."""
    identity = torch.eye(DIM, dtype=torch.float64)
    left, right = torch.zeros_like(identity), torch.zeros(DIM, dtype=torch.float64)
    for site in SITES:
        curvature = problem.curvatures[site]
        lap = identity - RATE * spring * identity
        # One step: w <- lap w + RATE spring x - RATE H (w - c), with the spring first and the gradient at w before it.
        move = lap - RATE * curvature
        powers = [torch.linalg.matrix_power(move, number) for number in range(STEPS)]
        total = torch.stack(powers).sum(0)
        constant = total @ (RATE * curvature @ problem.centres[site])
        linear = torch.linalg.matrix_power(move, STEPS) + total * RATE * spring - identity
        left += WEIGHTS[site] * linear
        right -= WEIGHTS[site] * constant
    return torch.linalg.solve(left, right)


@pytest.mark.parametrize(("name", "spring"), [("fedavg", 0.0), ("fedprox", 0.7)])
def test_clients_that_drift_rest_where_their_ways_cancel(problem: Quadratics, name: str, spring: float) -> None:
    found = rest_of(problem, name)
    torch.testing.assert_close(found, resting_point(problem, spring), rtol=0, atol=1e-9)
    assert float((found - weighted_optimum(problem)).abs().max()) > 1e-3


def test_scaffold_rests_at_the_optimum(problem: Quadratics) -> None:
    torch.testing.assert_close(rest_of(problem, "scaffold"), weighted_optimum(problem), rtol=0, atol=1e-9)


def weighted_optimum(problem: Quadratics) -> Tensor:
    left = torch.stack([WEIGHTS[site] * problem.curvatures[site] for site in SITES]).sum(0)
    right = torch.stack([WEIGHTS[site] * problem.curvatures[site] @ problem.centres[site] for site in SITES]).sum(0)
    return torch.linalg.solve(left, right)


@pytest.mark.parametrize(("name", "parts"), [("fedavg", 1), ("fedprox", 1), ("scaffold", 2)])
def test_a_simulation_runs_its_rounds(name: str, parts: int) -> None:
    run = build_experiment(parse_job(JOB, [f"algorithm={name}"])).run()
    ends = last_rows(run)
    # Down 0.05 s, 8 steps at half speed 0.16 s, up 0.05 s; twenty times.
    assert ends[0].seconds == pytest.approx(20 * 0.26)
    assert {(row.round, row.step) for row in ends} == {(20, 160)}
    assert run.traffic.bytes == 2 * 20 * 4 * parts * 4 * 9610 == 2 * 4 * ends[0].bytes_sent
    assert len({row.metric for row in ends}) == 1
    assert ends[0].metric > 0.6


def test_equal_jobs_give_equal_rows() -> None:
    runs = [build_experiment(parse_job(JOB, ["training.rounds=4"])).run() for _ in range(2)]
    assert runs[0] == runs[1]


def test_parameters_kept_at_the_site_differ_there_and_are_not_sent() -> None:
    run = build_experiment(parse_job(JOB, ["training.local=['2.*']"])).run()
    assert len({row.loss for row in last_rows(run)}) == 4
    whole = build_experiment(parse_job(JOB)).run().traffic.bytes
    assert 0 < run.traffic.bytes < whole


@pytest.mark.parametrize(("kept", "models"), [("[]", 1), ("['2.*']", 4)])
def test_models_that_cannot_differ_are_measured_once(kept: str, models: int) -> None:
    experiment = build_experiment(parse_job(JOB, ["training.rounds=1", f"training.local={kept}"]))
    measured: list[nn.Module] = []

    def note(module: nn.Module, inputs: object, outputs: object) -> None:
        if isinstance(module, nn.Sequential) and not module.training:
            measured.append(module)

    with register_module_forward_hook(note):
        run = experiment.run()
    assert len(measured) == 2 * models  # before the round and after it
    assert len(run.rows) == 2 * 4


def test_a_run_can_end_by_the_clock() -> None:
    run = build_experiment(parse_job(JOB, ["training={rounds: null, seconds: 1.0, pace: 0}"])).run()
    assert last_rows(run)[0].seconds <= 1.0


def test_sites_that_never_give_a_finite_gradient_end_the_run() -> None:
    run = build_experiment(parse_job(JOB, ["training.learning_rate=1e30"])).run()
    assert run.gave_up == ("N1", "N2", "N3", "N4")


def test_uneven_rounds_are_refused() -> None:
    with pytest.raises(JobError, match="local_steps: should be alike at all sites for fedavg"):
        build_experiment(parse_job(JOB, ["sites={N1: {local_steps: 4}, N2: }", "simulation.sites={}"]))
