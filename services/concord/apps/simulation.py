"""Composition root of a simulation: from a job to virtual sites that hold the same objects as real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from concord.apps.device import CPU
from concord.apps.model_defaults import fit_to_model
from concord.apps.trainer import (
    build_brain,
    build_learner,
    job_plan,
    job_task,
    mean_weight,
    own_parameters,
    site_edges,
    split_options,
)
from concord.consensus.algorithm import LocalStep, payload_bytes
from concord.consensus.registry import AlgorithmOptions, build_client
from concord.consensus.vectors import FlatModel
from concord.errors import JobError
from concord.job import Job, SiteSettings
from concord.job.membership import Membership
from concord.job.names import SERVER_ALGORITHMS
from concord.job.simulation import LinkSection, SimulationSection, SiteFaultsSection
from concord.job.simulation_checks import edge_names
from concord.learning.pooled import train_pooled
from concord.learning.samples import Samples
from concord.learning.steps import GradientOptions, rehearse
from concord.learning.task import Task, deal
from concord.simulate.batch import LateGradients, choose_gradients
from concord.simulate.clock import Span
from concord.simulate.experiment import EdgeKey, Experiment, Gradients, Scenario, edge_key, gradients_by_site
from concord.simulate.faults import Crash, Faults
from concord.simulate.network import Link
from concord.simulate.report import Reference
from concord.simulate.rounds import Participant, ServerExperiment, Timetable
from concord.simulate.virtual_site import VirtualSite
from concord.site.brain import Plan
from concord.site.edges import Edge

_REFERENCE_POINTS = 40


def with_seed(job: Job, number: int) -> Job:
    """The job with other draws: `number` is added to the seeds of training and split."""
    training = job.training.model_copy(update={"seed": job.training.seed + number})
    split_section = job.split.model_copy(update={"seed": job.split.seed + number})
    return job.model_copy(update={"training": training, "split": split_section})


def build_experiment(job: Job, device: torch.device = CPU) -> Experiment | ServerExperiment:
    """All sites of a job, ready to run, with their models and data on a device.

    JobError if the job does not say when to end, or its task cannot be built.
    """
    _require_end(job)
    if job.algorithm.name in SERVER_ALGORITHMS:
        return _server_experiment(job, device)
    task, members = job_task(job), Membership.of(job)
    job = fit_to_model(job, task)
    edges = {name: site_edges(job, name, members) for name in job.site_names}
    train, storage = _training_samples(job, task, device), _storage(job, task, device)
    return Experiment(
        _scenario(job, edges),
        _sites(job, task, train, storage),
        edges,
        task.pool(job.site_names).test.to(device),
        task.headline,
        _gradients(job, task, storage, train[job.site_names[0]]),
    )


def _server_experiment(job: Job, device: torch.device) -> ServerExperiment:
    """The same sites around a server, each joined to it by a link as `simulation.network` says, but without loss."""
    uneven = {job.site(name).local_steps for name in job.site_names}
    if len(uneven) > 1:
        raise JobError(f"local_steps: should be alike at all sites for {job.algorithm.name}, found {sorted(uneven)}")
    task, section = job_task(job), job.simulation
    train, storage = _training_samples(job, task, device), _storage(job, task, device)
    end = section.duration if section.duration is not None else job.training.seconds
    return ServerExperiment(
        [_participant(job, task, train[name], storage, row) for row, name in enumerate(job.site_names)],
        Timetable(section.evaluate_every, None if section.duration is not None else job.training.rounds, end),
        task.pool(job.site_names).test.to(device),
        task.headline,
        _gradients(job, task, storage, train[job.site_names[0]]),
    )


def _participant(job: Job, task: Task, train: Samples, storage: FlatModel, row: int) -> Participant:
    own = job.site(job.site_names[row])
    learner = build_learner(job, task, train, own, FlatModel(storage.primal[row], storage.gradient[row]))
    step = LocalStep(own.learning_rate, own.local_steps)
    client = build_client(AlgorithmOptions(**job.algorithm.model_dump()), learner.flat.shared.primal, step)
    return Participant(
        own.name,
        learner,
        client,
        _round_seconds(job, own, payload_bytes(client.layout())),
        own.weight,
        own_parameters(learner, own),
        row,
    )


def _round_seconds(job: Job, own: SiteSettings, size: int) -> float:
    """Down, the local steps, up; at least the pace."""
    section = job.simulation
    network, speed = section.network, section.faults(own.name).speed
    transfer = network.latency + (size / network.bandwidth if network.bandwidth else 0.0)
    return 2 * transfer + max(job.training.pace, own.local_steps * section.step_seconds / speed)


def reference(job: Job, steps: int, device: torch.device = CPU) -> Reference:
    """A model trained on all the data in one place, for so many steps."""
    task, training = job_task(job), job.training
    curve = train_pooled(
        task,
        task.pool(job.site_names).to(device),
        rate=training.learning_rate,
        steps=steps,
        options=GradientOptions(training.batch_size, training.momentum, training.weight_decay, training.clip),
        seed=training.seed,
        evaluate_every=max(1, steps // _REFERENCE_POINTS),
    )
    return Reference(
        tuple((point.step / steps, point.evaluation.metrics[task.headline]) for point in curve),
        curve[-1].evaluation.metrics,
    )


def _require_end(job: Job) -> None:
    if job.training.rounds is None and job.training.seconds is None and job.simulation.duration is None:
        raise JobError("simulation.duration: should be a number of virtual seconds, because training has no end")


def _scenario(job: Job, edges: Mapping[str, Mapping[str, Edge]]) -> Scenario:
    section = job.simulation
    keys = sorted({edge_key(name, other) for name in edges for other in edges[name]})
    return Scenario(
        step_seconds=section.step_seconds,
        evaluate_every=section.evaluate_every,
        links={key: _link(section.link(*edge_names(key))) for key in keys},
        outages={key: _outages(section, key) for key in keys},
        duration=section.duration,
        rounds=job.training.rounds,
        seed=job.training.seed,
    )


def _link(section: LinkSection) -> Link:
    return Link(section.latency, section.jitter, section.bandwidth, section.loss, section.duplication)


def _outages(section: SimulationSection, key: EdgeKey) -> tuple[Span, ...]:
    """The partitions that cut this edge: by its name, or because one of its ends is inside and one is not."""
    left, right = key
    return tuple(
        Span(partition.start, partition.end)
        for partition in section.partitions
        if not set(edge_names(key)).isdisjoint(partition.edges)
        or (left in partition.sites) != (right in partition.sites)
    )


def _storage(job: Job, task: Task, device: torch.device) -> FlatModel:
    """One tensor for the models of all sites, a row each, and one for their gradients."""
    size = sum(one.numel() for one in task.new_model(job.training.seed).parameters() if one.requires_grad)
    shape = (len(job.sites), size)
    return FlatModel(torch.zeros(shape, device=device), torch.zeros(shape, device=device))


def _gradients(job: Job, task: Task, storage: FlatModel, samples: Samples) -> Gradients:
    if job.simulation.batched == "off" or job.privacy is not None:  # private learners count their own gradients
        return gradients_by_site

    def choose() -> Gradients:
        template = task.new_model(job.training.seed).to(storage.primal.device)
        return choose_gradients(template, task.loss, storage, samples, job.training.local)

    return LateGradients(choose)


def _sites(job: Job, task: Task, train: Mapping[str, Samples], storage: FlatModel) -> dict[str, VirtualSite]:
    weight = mean_weight(job)
    sites = {}
    for row, name in enumerate(job.site_names):
        own = job.site(name)
        learner = build_learner(job, task, train[name], own, FlatModel(storage.primal[row], storage.gradient[row]))
        brain = build_brain(job, own, learner, _quiet(job, job_plan(job, own.local_steps)), {})
        faults = _faults(job.simulation.faults(name))
        sites[name] = VirtualSite(brain, learner, faults, own.weight / weight, row)
    return sites


def _training_samples(job: Job, task: Task, device: torch.device) -> dict[str, Samples]:
    """What each site learns from; a pool is dealt out once for all. TaskError if the model cannot learn from it."""
    options = split_options(job)
    if task.natural_sites:
        train = {name: task.site_data(name, job.site_names, options).train for name in job.site_names}
    else:
        pool = task.pool()
        train = {name: pool.train.select(indices) for name, indices in deal(pool, job.site_names, options).items()}
    placed = {name: samples.to(device) for name, samples in train.items()}
    rehearse(task, placed[job.site_names[0]])
    return placed


def _quiet(job: Job, plan: Plan) -> Plan:
    """A plan without reports, for which the experiment has its own times; a `duration` replaces other ends."""
    quiet = replace(plan, evaluate_interval=math.inf, snapshot_interval=math.inf, status_interval=math.inf)
    return quiet if job.simulation.duration is None else replace(quiet, rounds=None, seconds=None)


def _faults(section: SiteFaultsSection) -> Faults:
    return Faults(
        speed=section.speed,
        pauses=tuple(Span(pause.start, pause.end) for pause in section.pauses),
        crashes=tuple(Crash(crash.at, crash.down) for crash in section.crashes),
        joins=section.joins,
        leaves=section.leaves,
    )
