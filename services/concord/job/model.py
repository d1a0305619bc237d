"""The job as frozen, typed values, each field with its unit and its consequence. Knows neither YAML nor
files.

Checks of one value against its type and range are here; checks of values against each other are in `checks`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from concord.consensus.graph import Topology, build_topology
from concord.errors import JobError
from concord.job.names import (
    ALGORITHMS,
    COMPRESSIONS,
    NUMBER_FORMATS,
    PRECONDITIONERS,
    SERVER_ALGORITHMS,
    SPLIT_OPTIONS,
    TASKS,
    TOPOLOGY_OPTIONS,
)
from concord.job.simulation import SimulationSection
from concord.job.values import Count, NotNegative, Positive, Section, Seed, matching, named, one_of

REACHES = ("both", "outbound", "inbound")
MODES = ("push", "pull")


def site_mapping(value: object) -> dict[str, object]:
    """Any of the three forms of `sites` as name -> overrides; ValueError if it is none of them."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return {f"N{number}": {} for number in range(1, value + 1)}
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"site {', '.join(twice)} is listed twice")
        return {name: {} for name in value}
    if isinstance(value, Mapping) and value:
        return {name: {} if overrides is None else overrides for name, overrides in value.items()}
    raise ValueError(
        f"should be a number of sites, a list of names, or a mapping of name to overrides, found {value!r}"
    )


EdgeList = tuple[tuple[str, str], ...] | dict[str, tuple[str, ...]]


def _edge_list(value: object) -> object:
    """The lists of YAML as tuples; ValueError if they are neither pairs nor a mapping to neighbours."""
    if isinstance(value, list) and all(_is_names(pair) and len(pair) == 2 for pair in value):
        return tuple(tuple(pair) for pair in value)
    if isinstance(value, dict) and all(_is_names(others) for others in value.values()):
        return {site: tuple(others) for site, others in value.items()}
    raise ValueError(f"should be a list of [site, site], or a mapping of each site to its neighbours, found {value!r}")


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


# Names are host name labels, so that they can stand in URLs, Redis keys, certificates and metric labels.
FederationName = Annotated[
    str,
    matching(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "lower-case letters, digits and - inside, at most 63"),
]
SiteName = Annotated[
    str, matching(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", "letters, digits and - inside, at most 63")
]
BaseUrl = Annotated[str, matching(r"https?://[^/\s]+(/\S*)?", "a URL such as http://host:8080")]


class TaskSection(Section):
    """What is learned: a built-in `name`, or your own `model` and `data` (and `loss`, `metric`) as
    module:function.
    """

    name: Annotated[str, one_of("task", TASKS)] | None = None
    model: str | None = None
    data: str | None = None
    loss: str | None = None
    metric: str | None = None
    options: dict[str, object] = Field(default_factory=dict)


class SplitSection(Section):
    """How a task's one data set is dealt out to the sites; not used by a task whose sites have data of their
    own.

    `classes` is the least and the greatest number of classes a site holds; `alpha` how even the shares are
    (small: uneven); `minimum` the fewest samples a site gets (or groups, such as patients, if the task has them);
    `width` how many classes a window holds and `stride` how many it is on from the one before; `seed` makes the split
    repeatable. A sample of several labels counts as of the rarest of them. `shards` is how many parts are dealt out
    (null: one for each site), so that sites can come and go without changing the data of the others.
    """

    kind: Annotated[str, one_of("split", tuple(SPLIT_OPTIONS))] = "classes-per-site"
    classes: Annotated[tuple[Count, Count], Field(strict=False)] = (2, 3)
    alpha: Positive = 0.5
    minimum: Count = 1
    width: Count = 2
    stride: Count = 2
    seed: Seed = 0
    shards: Count | None = None


class SiteSection(Section):
    """What one site does otherwise than `training` says; a key left out means no difference.

    `weight` is how much the site counts in the result. `reach` says which way the site can be called:
    `outbound` sites call but cannot be called, `inbound` sites are called but do not call. `url` is where
    neighbours find it. `shard` is the part of the data it holds, from 0, if `split.shards` says how many there are;
    left out, sites take them in turn.
    """

    learning_rate: Positive | None = None
    local_steps: Count | None = None
    batch_size: Count | None = None
    weight: Positive = 1.0
    reach: Annotated[str, one_of("reach", REACHES)] = "both"
    url: BaseUrl | None = None
    shard: Annotated[int, Field(ge=0)] | None = None


class TopologySection(Section):
    """Who exchanges with whom; `degree` is of random-regular, `columns` of grid, and `edges` are pairs of
    names, or name -> list of neighbours.
    """

    kind: Annotated[str, one_of("topology", tuple(TOPOLOGY_OPTIONS))] = "ring"
    degree: Annotated[int, Field(ge=0)] | None = None
    columns: Count | None = None
    seed: Seed = 0
    edges: Annotated[EdgeList | None, BeforeValidator(_edge_list)] = None


class AlgorithmSection(Section):
    """How sites come to agree.

    `penalty` is the strength of agreement (plain `ecl` only; derived from step size and degree otherwise);
    `averaging` theta is 1 for PDMM (faster, and the default of `c-ecl`) and 1/2 for ADMM (calmer; that of `ecl` and
    `ecl-isvr`), with `sm-ecl` 3/4; the two scales multiply what `ecl-isvr` and `sm-ecl` derive by themselves
    (`gamma_scale`, by default, according to whether gradients are damped). With `preconditioner: adam` each
    parameter of `ecl`, `ecl-isvr` and `c-ecl` has a step size of its own. `compression`, `keep` (the part of the model
    that one message tells) and `number_format` are for `c-ecl` only, the factor `momentum` in [0, 1) for
    `momentum-tracking` and `qg-dsgdm`, the spring `proximal` for `fedprox`.
    """

    name: Annotated[str, one_of("algorithm", ALGORITHMS + SERVER_ALGORITHMS)] = "sm-ecl"
    penalty: Positive | None = None
    averaging: Annotated[float, Field(gt=0, le=1)] | None = None
    penalty_scale: Positive = 1.0
    gamma_scale: Positive | None = None
    preconditioner: Annotated[str, one_of("preconditioner", PRECONDITIONERS)] = "none"
    compression: Annotated[str, one_of("compression", COMPRESSIONS)] = "random-k"
    keep: Annotated[float, Field(gt=0, le=1)] = 0.1
    number_format: Annotated[str, one_of("number format", NUMBER_FORMATS)] = "full"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    proximal: Positive = 0.1


class TrainingSection(Section):
    """Local training; a run ends at `rounds` or after `seconds`, whichever is first; null means no such
    limit.

    A round is `local_steps` mini-batches of `batch_size` samples and one exchange; it lasts at least `pace`
    seconds, so that a model whose steps are much faster than its exchange does not run ahead of it.
    `momentum` in [0, 1), `weight_decay` per step, `clip` the greatest norm of a gradient, `mean_damping` the share
    of it that is left along each layer's mean input (1: all; null: as the algorithm has it). After
    `max_bad_steps` steps in a row whose loss is not finite the site goes back to its last good checkpoint.
    Parameters whose names match a pattern of `local` (`head.*`) stay at their site and are never sent.
    """

    rounds: Count | None = 300
    seconds: Positive | None = None
    pace: NotNegative = 0.05
    local_steps: Count = 8
    batch_size: Count = 32
    learning_rate: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NotNegative = 0.0
    clip: Positive | None = None
    mean_damping: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed = 0
    max_bad_steps: Count = 20
    local: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()


class PrivacySection(Section):
    """What each site does so that all it sends and serves tells little of any one of its training samples (DP-SGD).

    The gradient of each sample is clipped to the norm `max_grad_norm`, and the sum over a batch, which each sample
    enters by a coin of its own, gets Gaussian noise of `noise_multiplier` times that norm. The status tells the epsilon
    at `target_delta`, which must be less than one over the number of samples. A site whose next round would take it
    over `target_epsilon` has finished (null: never).
    """

    noise_multiplier: Positive
    max_grad_norm: Positive = 1.0
    target_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    target_epsilon: Positive | None = None


class ExchangeSection(Section):
    """How updates travel. `min_interval` seconds lie between two sends to one neighbour, `timeout` seconds is
    the longest one request may take, an update over `max_update_bytes` is refused (null: derived from the
    model), and so is one whose numbers are over `absurd_factor` times as large as those of its edge and of the
    site's own updates (null: never); a smaller factor keeps out more, and at last what is right.
    """

    mode: Annotated[str, one_of("mode", MODES)] = "push"
    min_interval: NotNegative = 0.0
    max_update_bytes: Count | None = None
    absurd_factor: Annotated[float, Field(ge=10)] | None = 10_000.0
    timeout: Positive = 10.0


class EvaluationSection(Section):
    """A site measures its model on the validation data at most once in `every` seconds."""

    every: Positive = 0.5


class CheckpointSection(Section):
    """A site saves its state once in `every` seconds, which is what a crash can cost, and keeps the last
    `keep`.
    """

    every: Positive = 5.0
    keep: Count = 3


class GateSection(Section):
    """A model whose `metric` at publication is worse by more than `drop` than that of the one in service is held back.

    Worse is lower, or higher with `lower_is_better`. `metric` is by default the task's first.
    """

    metric: str | None = None
    drop: NotNegative = 0.02
    lower_is_better: bool = False


Pattern = Annotated[str, Field(min_length=1)]


class PersonalSection(Section):
    """Beside the common model each site serves one of its own, in which the `parameters` that match a pattern are
    trained further on its own data before each publication: `steps` mini-batches at `learning_rate` (null: the site's).

    `head` stands for the last layer.
    """

    parameters: Annotated[tuple[Pattern, ...], Field(strict=False, min_length=1)] = ("head",)
    steps: Count = 50
    learning_rate: Positive | None = None


def _personal(value: object) -> object:
    """The short forms: one pattern, or a list of them."""
    if isinstance(value, str):
        return {"parameters": [value]}
    return {"parameters": value} if isinstance(value, list) else value


class ServingSection(Section):
    """A site publishes its model once in `every` seconds; the last `keep` stay answerable by version.

    `gate` holds back models that got worse (null: none is). `shadow` is the share of requests that a newer model which
    is not in service answers too, for comparison only. `personal` says what of the model each site makes its own.
    """

    every: Positive = 1.0
    keep: Count = 3
    gate: GateSection | None = None
    shadow: Annotated[float, Field(ge=0, le=1)] = 0.0
    personal: Annotated[PersonalSection | None, BeforeValidator(_personal)] = None


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """What holds for one site once its overrides are laid over the job; the sections say what it means."""

    name: str
    index: int
    learning_rate: float
    local_steps: int
    batch_size: int
    weight: float
    reach: str
    url: str | None


class Job(Section):
    """One federation's work; the same value at every site, which `digest` lets them compare."""

    name: FederationName
    task: Annotated[TaskSection, BeforeValidator(named("name"))]
    split: Annotated[SplitSection, BeforeValidator(named("kind"))] = SplitSection()
    sites: Annotated[dict[SiteName, SiteSection], BeforeValidator(site_mapping)]
    topology: Annotated[TopologySection, BeforeValidator(named("kind"))] = TopologySection()
    algorithm: Annotated[AlgorithmSection, BeforeValidator(named("name"))] = AlgorithmSection()
    training: TrainingSection = TrainingSection()
    privacy: PrivacySection | None = None
    exchange: ExchangeSection = ExchangeSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    serving: ServingSection = ServingSection()
    simulation: SimulationSection = SimulationSection()

    @property
    def site_names(self) -> tuple[str, ...]:
        """All sites, in the order of the file."""
        return tuple(self.sites)

    def site(self, name: str) -> SiteSettings:
        """What holds for one site; KeyError if the job has no such site."""
        own, usual = self.sites[name], self.training
        return SiteSettings(
            name=name,
            index=self.site_names.index(name),
            learning_rate=own.learning_rate or usual.learning_rate,
            local_steps=own.local_steps or usual.local_steps,
            batch_size=own.batch_size or usual.batch_size,
            weight=own.weight,
            reach=own.reach,
            url=own.url,
        )

    def require_deployable(self) -> None:
        """JobError if only a simulation can run this job."""
        if self.algorithm.name in SERVER_ALGORITHMS:
            raise JobError(
                f"algorithm: {self.algorithm.name} needs a server, which deployed sites do without; "
                "`concord simulate` runs it, to compare with"
            )

    def topology_graph(self) -> Topology:
        """The graph of sites; TopologyError if it cannot be used."""
        section = self.topology
        options = {name: getattr(section, name) for name in TOPOLOGY_OPTIONS[section.kind]}
        return build_topology(section.kind, self.site_names, **options)

    def digest(self) -> str:
        """32 hex digits, equal for jobs that say the same however they are written; a simulation is not part."""
        # The order of the sites is part of the meaning: a ring joins each site to the next.
        said = {"job": self.model_dump(mode="json", exclude={"simulation"}), "order": self.site_names}
        text = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
