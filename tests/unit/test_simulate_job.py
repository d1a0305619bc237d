"""The `simulation` section of a job: what it says of links and sites, and how each mistake in it is told."""

from __future__ import annotations

import pytest

from concord.job import JobFileError, parse_job

RING = "name: digits\ntask: digits\nsites: 4\n"


def problems_of(*overrides: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        parse_job(RING, overrides)
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


def test_an_edge_differs_from_the_network_only_where_it_says_so() -> None:
    job = parse_job(RING, ["simulation.network={latency: 0.5, loss: 0.2}", "simulation.edges.N2-N1.loss=0"])
    assert job.simulation.link("N1-N2", "N2-N1").loss == 0
    assert job.simulation.link("N1-N2", "N2-N1").latency == 0.5
    assert job.simulation.link("N2-N3", "N3-N2").loss == 0.2


def test_a_site_that_is_not_mentioned_has_no_faults() -> None:
    job = parse_job(RING, ["simulation.sites.N3={speed: 0.1, crashes: [{at: 1, down: 2}]}"])
    assert (job.simulation.faults("N3").speed, job.simulation.faults("N3").crashes[0].down) == (0.1, 2)
    assert job.simulation.faults("N1").speed == 1


def test_a_simulation_does_not_change_what_sites_compare() -> None:
    assert parse_job(RING).digest() == parse_job(RING, ["simulation.network.loss=0.5"]).digest()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("simulation.network.loss=1.0", "simulation.network.loss: should be from 0 to below 1, found 1"),
        ("simulation.network.loss=-0.1", "simulation.network.loss: should be from 0 to below 1, found -0.1"),
        ("simulation.network.duplication=2", "simulation.network.duplication: should be from 0 to 1, found 2"),
        ("simulation.network.jitter=normal", "unknown jitter 'normal'; did you mean 'uniform'?"),
        ("simulation.network.bandwidth=0", "simulation.network.bandwidth: should be greater than 0, found 0"),
        ("simulation.step_seconds=0", "simulation.step_seconds: should be greater than 0, found 0"),
        (
            "simulation.step_seconds=1e-10",
            "simulation.step_seconds: should be at least 1e-09, found 1e-10: virtual time is kept to the nanosecond",
        ),
        ("simulation.evaluate_every=1e-10", "simulation.evaluate_every: should be at least 1e-09, found 1e-10"),
        ("simulation.sites.N3.speed=1e8", "simulation.sites.N3.speed: should be at most 1e+07, found 1e+08"),
        ("simulation.sites.N3.speed=0", "simulation.sites.N3.speed: should be greater than 0, found 0"),
        ("simulation.sites.N3.sped=1", "unknown key; did you mean 'speed'?"),
        ("simulation.sites.N7.speed=1", "simulation.sites.N7: unknown site 'N7'"),
        ("simulation.edges.N1-N3.loss=0", "simulation.edges.N1-N3: unknown edge 'N1-N3'"),
        (
            "simulation.partitions=[{sites: [N1], start: 2, end: 1}]",
            "simulation.partitions.0.end: should be after start, which is 2, found 1",
        ),
        ("simulation.partitions=[{start: 1, end: 2}]", "should name the edges or the sites that it cuts off"),
        ("simulation.partitions=[{sites: [N9], start: 1, end: 2}]", "simulation.partitions.0.sites.0: unknown site"),
        ("simulation.partitions=[{edgs: [N1-N2], start: 1, end: 2}]", "unknown key; did you mean 'edges'?"),
        ("simulation.sites.N1.pauses=[{start: 1, end: 1}]", "simulation.sites.N1.pauses.0.end: should be after start"),
        (
            "simulation.sites.N1.pauses=[{start: 1, end: 3}, {start: 2, end: 4}]",
            "simulation.sites.N1.pauses.1.start: should not be before the end of the pause before, 3, found 2",
        ),
        (
            "simulation.sites.N1.crashes=[{at: 1, down: 3}, {at: 2, down: 1}]",
            "simulation.sites.N1.crashes.1.at: should not be before the end of the crash before, 4, found 2",
        ),
        ("simulation.sites.N1={joins: 3, leaves: 3}", "simulation.sites.N1.leaves: should be at another time"),
        ("simulation.batched=true", "simulation.batched: should be a valid string, found True"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_the_range(override: str, message: str) -> None:
    (problem,) = problems_of(override)
    assert message in problem


def test_what_depends_on_a_wrong_topology_is_not_reported() -> None:
    assert len(problems_of("topology=rong", "simulation.edges.N1-N2.loss=0")) == 1
