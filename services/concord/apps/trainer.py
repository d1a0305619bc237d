"""Composition root of a trainer: from a job and one site's settings to a `Trainer` that runs. The only process
of a site that computes gradients; it talks to its own Redis, and answers on its port how it is."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import torch

from concord.apps.background import Background, Ready, Service
from concord.apps.health import TrainerHealth
from concord.apps.members import Members
from concord.apps.model_defaults import fit_to_model
from concord.apps.processors import training_threads
from concord.apps.serve import Server, bind, connection_limits
from concord.apps.traces import traces
from concord.consensus.algorithm import EdgeEnd, LocalStep
from concord.consensus.mixing_time import slowest_mixing
from concord.consensus.registry import AlgorithmOptions, build_algorithm, edge_terms
from concord.consensus.vectors import FlatModel, fingerprint
from concord.errors import CheckpointError, EnvironmentProblem, JobError
from concord.job import Job, SiteSettings
from concord.job.membership import Membership
from concord.learning.checkpoint import CheckpointStore
from concord.learning.ledger import Ledger
from concord.learning.partition import SplitOptions
from concord.learning.personal import Tuner, TuningOptions
from concord.learning.privacy import PrivacyOptions
from concord.learning.private import PrivateLearner
from concord.learning.randomness import SeededRandomness, SystemRandomness
from concord.learning.steps import GradientOptions, Learner
from concord.learning.task import Samples, SiteData, Task, TaskSpec, resolve_task
from concord.mailbox.redis import RedisMailbox
from concord.serving.choice import Gate
from concord.serving.packing import pack_model
from concord.serving.predictor import Predictor
from concord.serving.snapshots import RedisShelf
from concord.settings import Settings
from concord.site.brain import Brain, Identity, Plan
from concord.site.edges import Edge
from concord.site.journey import Journey
from concord.site.loop import Facts, Packed, Trainer
from concord.site.own import OwnParameters
from concord.site.post import Post
from concord.suggest import unknown
from concord.telemetry.redis import RedisMemory, redis_source
from concord.telemetry.registry import Source
from concord.telemetry.tracing import Tracing
from concord.telemetry.trainer import trainer_source

log = logging.getLogger(__name__)

READY_TIMEOUT = 60.0
"""Seconds a process may take to open what it opens."""


def job_task(job: Job) -> Task:
    """The task of a job; TaskError if it cannot be built."""
    return resolve_task(TaskSpec(**job.task.model_dump()))


def split_options(job: Job) -> SplitOptions:
    """How the job deals out its data."""
    shard = {name: site.shard for name, site in job.sites.items() if site.shard is not None}
    return SplitOptions(**job.split.model_dump(), shard=shard)


def site_edges(job: Job, site: str, members: Membership) -> dict[str, Edge]:
    """The edges of one member with their terms, which the other end derives alike from the same job and members."""
    options = AlgorithmOptions(**job.algorithm.model_dump())
    mixing = slowest_mixing(frozenset(edge.sites for edge in members.edges))

    def end(name: str) -> EdgeEnd:
        own, usual = members.sites[name], job.training
        step = LocalStep(own.learning_rate or usual.learning_rate, own.local_steps or usual.local_steps)
        return EdgeEnd(step, len(members.epochs(name)), mixing)

    return {
        neighbour: Edge(epoch, edge_terms(options, end(site), end(neighbour)))
        for neighbour, epoch in sorted(members.epochs(site).items())
    }


def member_edges(job: Job, site: str, members: Membership) -> dict[str, Edge] | None:
    """The edges of a site, or None if it is no member."""
    return site_edges(job, site, members) if site in members.sites else None


async def follow_members(trainer: Trainer, job: Job, site: str, members: Members) -> None:
    """Keep a trainer's edges as the members have them, until cancelled."""
    async for membership in members.changes():
        trainer.change_edges(member_edges(job, site, membership))


def job_predictor(job: Job, task: Task) -> Predictor:
    """A predictor for the snapshots that this job's trainers publish."""
    print_ = fingerprint(task.new_model(job.training.seed), job.training.local)
    about = (task.classes, task.input_shape, task.name, print_, task.multi_label, task.picture)
    return Predictor(task.build_model, *about)


def build_trainer(
    job: Job, settings: Settings, task: Task, post: Post, members: Membership, journey: Journey | None = None
) -> Trainer:
    """A trainer for one site, not yet booted; JobError if the job does not allow one."""
    own = job.site(settings.site)
    data = task.site_data(own.name, job.site_names, split_options(job))
    learner = build_learner(job, task, data.train, own, state_dir=settings.state_dir)
    edges = member_edges(job, own.name, members)
    return Trainer(
        brain=build_brain(job, own, learner, job_plan(job, own.local_steps), edges or {}),
        learner=learner,
        post=post,
        store=CheckpointStore(settings.state_dir, keep=job.checkpoint.keep),
        evaluation=data.validation,
        facts=Facts(task.name, task.headline, job.training.rounds, {} if job.privacy else _class_counts(task, data)),
        edges=edges,
        pack=job_pack(job, task, data, learner, own),
        weight=own.weight / mean_weight(job),
        join_timeout=settings.join_timeout if settings.topology is not None else 0.0,
        journey=journey,
    )


def job_pack(job: Job, task: Task, data: SiteData, learner: Learner, own: SiteSettings) -> Callable[[], Packed]:
    """How the site's model is packed: alone, or with the site's own variant of it."""
    section = job.serving.personal
    if section is None:
        return lambda: Packed(pack_model(learner.module))
    rate = section.learning_rate or own.learning_rate
    options = TuningOptions(section.parameters, section.steps, rate, own.batch_size, job.training.seed)
    tuner = Tuner(learner.module, task, data, options)

    def pack() -> Packed:
        tuned = tuner.tune(learner.module)
        if tuned is None:
            log.warning("no variant of this site's own is published: training it further came to NaN or infinity")
            return Packed(pack_model(learner.module))
        return Packed(pack_model(learner.module, tuned.tensors), tuned.metrics)

    return pack


def job_gate(job: Job, task: Task) -> Gate | None:
    """What a new model must not be worse in; JobError if the task does not measure it."""
    section = job.serving.gate
    if section is None:
        return None
    metric = section.metric or task.headline
    if metric not in task.metrics:
        raise JobError(f"serving.gate.metric: {unknown('metric', metric, task.metrics)}")
    return Gate(metric, section.drop, section.lower_is_better)


def mean_weight(job: Job) -> float:
    """What the weights of sites are relative to."""
    return sum(section.weight for section in job.sites.values()) / len(job.sites)


def build_learner(
    job: Job,
    task: Task,
    train: Samples,
    own: SiteSettings,
    storage: FlatModel | None = None,
    state_dir: Path | None = None,
) -> Learner:
    """The learner of one site on its training samples. Without a `state_dir` the site is a simulated one: its private
    gradients are counted in memory and repeatable, so that they protect nobody.
    """
    training = job.training
    options = GradientOptions(
        batch_size=own.batch_size,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        clip=training.clip,
        mean_damping=training.mean_damping,
    )
    # All sites start from one model; each draws its own batches.
    seed = training.seed + 1 + own.index
    if job.privacy is not None:
        privacy = PrivacyOptions(**job.privacy.model_dump())
        source = SeededRandomness(seed) if state_dir is None else SystemRandomness()
        module = task.new_model(training.seed)
        return PrivateLearner(module, task, train, options, privacy, Ledger(state_dir), source, storage, training.local)
    return Learner(task.new_model(training.seed), task, train, options, seed, storage, training.local)


def build_brain(job: Job, own: SiteSettings, learner: Learner, plan: Plan, edges: Mapping[str, Edge]) -> Brain:
    """The brain of one site around its learner's tensors; JobError for impossible settings."""
    options = AlgorithmOptions(**job.algorithm.model_dump())
    shared = learner.flat.shared
    step = LocalStep(own.learning_rate, own.local_steps)
    algorithm = build_algorithm(options, shared.primal, step, shared.layers)
    identity = Identity(job.name, own.name, fingerprint(learner.module, job.training.local))
    return Brain(identity, plan, algorithm, shared.gradient, edges, own_parameters(learner, own))


def own_parameters(learner: Learner, own: SiteSettings) -> OwnParameters | None:
    """The parameters that stay at the site, if there are any."""
    kept = learner.flat.own
    return OwnParameters(kept.primal, kept.gradient, own.learning_rate) if learner.flat.kept else None


def job_plan(job: Job, local_steps: int) -> Plan:
    """When a site of so many local steps to the round does what."""
    return Plan(
        local_steps=local_steps,
        rounds=job.training.rounds,
        seconds=job.training.seconds,
        pace=job.training.pace,
        evaluate_interval=job.evaluation.every,
        checkpoint_interval=job.checkpoint.every,
        snapshot_interval=job.serving.every,
        max_bad_steps=job.training.max_bad_steps,
    )


def _class_counts(task: Task, data: SiteData) -> dict[str, int]:
    """Training samples by class name; empty if the targets are not classes."""
    if not task.classes or data.train.targets.dim() != 1:
        return {}
    counts = data.train.targets.bincount(minlength=len(task.classes)).tolist()
    return dict(zip(task.classes, counts, strict=True))


def run(job: Job, settings: Settings) -> None:
    """Train until the job's end, then stay and report, until SIGTERM or SIGINT."""
    with traces("trainer", settings.site) as tracing:
        _run(job, settings, tracing)


def _run(job: Job, settings: Settings, tracing: Tracing | None) -> None:
    torch.set_num_threads(training_threads(settings.threads))
    listener = bind(settings.host, settings.port)
    task = job_task(job)
    job = fit_to_model(job, task)
    mailbox = RedisMailbox(settings.redis_url, job.name, settings.site)
    shelf = RedisShelf(settings.redis_url, job.name, settings.site, job.serving.keep)
    journey = Journey(job.name, settings.site, tracing)
    post = Post(settings.site, mailbox, shelf, journey=journey)
    members = Members(job, settings)
    with keeping_checkpoints():
        trainer = build_trainer(job, settings, task, post, members.now, journey)
    memory = RedisMemory(mailbox.link)
    links = redis_source(mailbox.link.state, shelf.link.state)
    sources = (trainer_readings(trainer, members), links, memory.readings)
    health = TrainerHealth(trainer, mailbox, job.training.pace)
    server = Server(health.app(sources), listener, limits=connection_limits(settings))

    async def carry(ready: Ready, stop: asyncio.Event) -> None:
        following = follow_members(trainer, job, settings.site, members)
        async with beside(post.run(), following, memory.run()), server.running():
            ready()
            await stop.wait()

    train_beside(carry, trainer)


def trainer_readings(trainer: Trainer, members: Members) -> Source:
    """Readings of a trainer and of the members that it follows."""
    return trainer_source(trainer, lambda: members.now.version, time.time)


def train_beside(service: Service, trainer: Trainer) -> None:
    """Train in this thread, which must be the main one, with `service` in another, until SIGTERM or SIGINT."""
    with stop_signals() as stop:
        background = Background(service, on_exit=stop.set)
        background.start(READY_TIMEOUT)
        try:
            with keeping_checkpoints():
                trainer.run(stop)
        finally:
            background.stop(READY_TIMEOUT)


@contextmanager
def keeping_checkpoints() -> Iterator[None]:
    """A trainer that cannot read or write its checkpoints at all cannot run: EnvironmentProblem with the remedy."""
    try:
        yield
    except CheckpointError as error:
        raise EnvironmentProblem(f"{error}; another folder can be chosen with --state-dir") from error


@asynccontextmanager
async def beside(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """These run while the block runs; what one of them raises is raised at its end."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; the handlers before come back at the end. Main thread only."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
