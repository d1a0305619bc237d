"""What is learned: a model, a loss, metrics, and data that each site has or that is dealt out to the sites.

A job names a built-in task or brings its own as `module:function`. Must not know neighbours or messages.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from concord.errors import SplitError, TaskError
from concord.learning import own
from concord.learning.objectives import LOSSES, METRICS, Loss, Metric
from concord.learning.options import Options
from concord.learning.partition import ClassCounts, SplitOptions, class_counts, split
from concord.learning.pictures import PictureForm
from concord.learning.reference import resolve_reference
from concord.learning.samples import Pool, Samples, SiteData
from concord.learning.tasks import BUILT_IN
from concord.suggest import unknown

__all__ = [
    "Loss",
    "Metric",
    "Pool",
    "Samples",
    "SiteData",
    "Task",
    "TaskSpec",
    "deal",
    "describe",
    "resolve_task",
]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as a job names it: `name` of a built-in one, or `model` and `data` as `module:function`.

    `loss` and `metric` are names of `objectives` or `module:function`; None stands for the task's own, or for
    cross_entropy and accuracy. With `name`, `model` replaces the built-in model. `options` go to the built-in
    task; or, by name, to the parameters of the functions behind `model` and `data`, besides `classes` (names)
    and `input_shape`, which describe the task to those who use it.
    """

    name: str | None = None
    model: str | None = None
    data: str | None = None
    loss: str | None = None
    metric: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)


PoolLoader = Callable[[], Pool]
"""Loads the data of a task whose samples are dealt out to the sites by a split."""

SiteLoader = Callable[[str, Sequence[str]], SiteData]
"""Loads the data of one site where sites are natural; also given the names of all, in the job's order."""

FileFinder = Callable[[], Sequence[Path]]


@dataclass(frozen=True, slots=True)
class Task:
    """A learning problem, the same at every site but for the data.

    `build_model` draws the weights from torch's generator, so seed it first, or call `new_model`.
    `metrics` are in the order of reports, the headline first. `classes` names what the outputs stand for and
    `input_shape` is of one sample; either is empty if unknown. Exactly one of the two loaders is there. With
    `multi_label` any number of classes may be right at once, and outputs are the logit of each. `picture` says what
    pictures the inputs are, if they are. `files` finds the files that a loader reads, for a record of what was used.
    """

    name: str
    build_model: Callable[[], nn.Module]
    loss: Loss
    metrics: Mapping[str, Metric]
    load_pool: PoolLoader | None = None
    load_site: SiteLoader | None = None
    classes: tuple[str, ...] = ()
    input_shape: tuple[int, ...] = ()
    multi_label: bool = False
    picture: PictureForm | None = None
    files: FileFinder = tuple

    @property
    def headline(self) -> str:
        """Name of the first metric."""
        return next(iter(self.metrics))

    @property
    def natural_sites(self) -> bool:
        """Whether each site comes with its own data, so that no split applies."""
        return self.load_site is not None

    def new_model(self, seed: int) -> nn.Module:
        """A model whose weights depend on `seed` alone; torch's generator is as before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build_model()

    def pool(self, sites: Sequence[str] = ()) -> Pool:
        """All the data in one place; for natural sites, what the `sites` have between them."""
        if self.load_pool is not None:
            return self.load_pool()
        parts = [self._natural_data(site, sites) for site in sites]
        if not parts:
            raise TaskError(f"task {self.name!r} has data by site only: name the sites")
        return Pool(
            Samples.concatenate([part.train for part in parts]),
            Samples.concatenate([part.validation for part in parts]),
        )

    def site_data(self, site: str, sites: Sequence[str], options: SplitOptions | None = None) -> SiteData:
        """One site's data: its own, or its share of the pool with the common test set as validation.

        `options` say how to split a pool; TaskError naming the site if it has nothing to learn from.
        """
        if site not in sites:
            raise TaskError(f"{unknown('site', site, sites)}")
        data = self._natural_data(site, sites) if self.natural_sites else self._share(site, sites, options)
        for samples, what in ((data.train, "train on"), (data.validation, "validate with")):
            if not len(samples):
                raise TaskError(f"site {site!r} has no data to {what}: give it samples or leave the site out")
        return data

    def _natural_data(self, site: str, sites: Sequence[str]) -> SiteData:
        if self.load_site is None:
            raise TaskError(f"task {self.name!r} has neither a pool nor data by site")
        return self.load_site(site, sites)

    def _share(self, site: str, sites: Sequence[str], options: SplitOptions | None) -> SiteData:
        pool = self.pool()
        return SiteData(pool.train.select(deal(pool, sites, options)[site]), pool.test)


def deal(pool: Pool, sites: Sequence[str], options: SplitOptions | None = None) -> dict[str, Tensor]:
    """Indices into the training samples of a pool, by site; SplitError if they cannot be dealt out as asked."""
    return split(pool.train.targets, sites, options or SplitOptions(), pool.groups)


def describe(task: Task, sites: Sequence[str], options: SplitOptions | None = None) -> tuple[ClassCounts, ...]:
    """How many training samples of each class, or with each label, each site holds, a row per site.

    TaskError if the targets are neither, so that there is nothing to count.
    """
    if task.natural_sites:
        parts = {site: task.site_data(site, sites).train.targets for site in sites}
    else:
        pool = task.pool()
        parts = {site: pool.train.targets[ids] for site, ids in deal(pool, sites, options).items()}
    try:
        return _table(parts, len(task.classes))
    except SplitError as exc:
        raise TaskError(f"task {task.name!r} cannot be described: {exc}") from exc


def resolve_task(spec: TaskSpec) -> Task:
    """The task a job asks for; the current directory counts as a place for its modules.

    TaskError says which key is wrong, what was found there and what would be right.
    """
    task = _own(spec) if spec.name is None else _built_in(spec.name, spec)
    if spec.loss is not None:
        multi_label = task.multi_label or spec.loss == "binary_cross_entropy"
        task = replace(task, loss=_loss(spec.loss), multi_label=multi_label)
    if spec.metric is not None:
        task = replace(task, metrics={spec.metric.rpartition(":")[2]: _metric(spec.metric)})
    return task


def _built_in(name: str, spec: TaskSpec) -> Task:
    if name not in BUILT_IN:
        raise TaskError(f"task.name: {unknown('task', name, BUILT_IN)}")
    if spec.data is not None:
        raise TaskError("task.data: a built-in task has its own data; drop either task.name or task.data")
    build: Callable[[Mapping[str, object]], Task] = importlib.import_module(BUILT_IN[name]).build_task
    task = build(spec.options)
    if spec.model is None:
        return task
    return replace(task, build_model=own.model_builder(resolve_reference("task.model", spec.model), {}))


def _own(spec: TaskSpec) -> Task:
    if spec.model is None or spec.data is None:
        lacking = "task.model" if spec.model is None else "task.data"
        raise TaskError(f"{lacking}: missing; name a built-in task, or give both model and data as module:function")
    model = resolve_reference("task.model", spec.model)
    data = resolve_reference("task.data", spec.data)
    options = Options(spec.options)
    classes, input_shape = options.names("classes"), options.shape("input_shape")
    model_options, data_options = options.named_like(model), options.named_like(data)
    options.finish()
    by_site = own.is_by_site(data, data_options)
    return Task(
        name=spec.model.partition(":")[0],
        build_model=own.model_builder(model, model_options),
        loss=LOSSES["cross_entropy"],
        metrics={"accuracy": METRICS["accuracy"]},
        classes=classes,
        input_shape=input_shape,
        load_pool=None if by_site else own.pool_loader(data, data_options),
        load_site=own.site_loader(data, data_options) if by_site else None,
    )


def _loss(text: str) -> Loss:
    if ":" in text:
        return own.loss(resolve_reference("task.loss", text))
    if text not in LOSSES:
        raise TaskError(f"task.loss: {unknown('loss', text, LOSSES)}, or module:function")
    return LOSSES[text]


def _metric(text: str) -> Metric:
    if ":" in text:
        return own.metric(resolve_reference("task.metric", text))
    if text not in METRICS:
        raise TaskError(f"task.metric: {unknown('metric', text, METRICS)}, or module:function")
    return METRICS[text]


def _table(parts: Mapping[str, Tensor], classes: int) -> tuple[ClassCounts, ...]:
    targets = torch.cat(list(parts.values()))
    sizes = [len(part) for part in parts.values()]
    places = torch.split(torch.arange(len(targets)), sizes)
    return class_counts(targets, dict(zip(parts, places, strict=True)), classes)
