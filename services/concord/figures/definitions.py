"""What each figure shows, as data: jobs, curves, and the settings of each size. Needs no torch.

A size is nothing but overrides of the job, so that both sizes are the same experiment. Must not know how a figure is
run or drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from concord.errors import JobError
from concord.suggest import unknown

SIZES = ("small", "full")
"""`small` ends within a quarter of an hour on two processors; `full` is the run to quote."""
POOLED = "pooled"
"""Stands for training on all data in one place among the labels of curves."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way of learning: what it changes in the panel's job, and how it is shown."""

    label: str
    colour: str
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One experiment: a job file of this package, the cases to run, and what each size changes in the job.

    `published` are accuracies in % from a paper, by the label of the case, or POOLED, after `published_rounds`.
    """

    name: str
    title: str
    job: str
    cases: tuple[Case, ...]
    sizes: Mapping[str, tuple[str, ...]]
    published: Mapping[str, float] = field(default_factory=dict)
    published_rounds: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture: panels side by side, the number of seeds by size, and the name of the function that draws it.

    `data` names the data set, unless somebody says what it is more exactly; `title` has a place for it.
    """

    name: str
    title: str
    data: str
    panels: tuple[Panel, ...]
    seeds: Mapping[str, int]
    drawing: str = "curves"

    @property
    def stem(self) -> str:
        """What its folder and its files are called."""
        return f"figure-{self.name}"


_PDMM = Case("ECL-ISVR, PDMM", "#1b6ac9", ("algorithm.name=ecl-isvr", "algorithm.averaging=1.0"))
_ADMM = Case("ECL-ISVR, ADMM", "#11999e", ("algorithm.name=ecl-isvr", "algorithm.averaging=0.5"))
_SM_PDMM = Case("SM-ECL, PDMM", "#8a4fbf", ("algorithm.name=sm-ecl", "algorithm.averaging=1.0"))
_SM = Case("SM-ECL", "#c77fd6", ("algorithm.name=sm-ecl",))
_GOSSIP = Case("gossip", "#d9822b", ("algorithm.name=gossip",))
_DPSGD = Case("D-PSGD", "#c23b4b", ("algorithm.name=dpsgd",))
_EVERY_STEP = Case("D-PSGD at every step", "#8a8f98", ("algorithm.name=dpsgd-every-step",))

_CIFAR10 = Panel(
    name="ring",
    title="8 sites in a ring, 2 or 3 classes each; asynchronous, a fifth of all messages lost",
    job="cifar10-ring.yaml",
    cases=(_PDMM, _ADMM, _SM_PDMM, _SM, _GOSSIP, _DPSGD),
    sizes={
        "small": (),
        "full": ("task.options.width=32", "simulation.duration=200"),
    },
)

_PAPER_CASES = (_PDMM, _ADMM, _GOSSIP, _DPSGD, _EVERY_STEP)
_DOUBLE_RING = Panel(
    name="double-ring",
    title="double ring",
    job="paper-double-ring.yaml",
    cases=_PAPER_CASES,
    sizes={"small": ("training.rounds=1600", "simulation.evaluate_every=6.4"), "full": ()},
    published={POOLED: 82.0, _PDMM.label: 80.8, _ADMM.label: 81.0, _EVERY_STEP.label: 65.5},
    published_rounds=8800,
)
_RANDOM = Panel(
    name="random",
    title="random graph",
    job="paper-random.yaml",
    cases=_PAPER_CASES,
    sizes={"small": ("training.rounds=1600", "simulation.evaluate_every=6.4"), "full": ()},
    published={POOLED: 81.7, _PDMM.label: 80.4, _ADMM.label: 80.4, _EVERY_STEP.label: 65.4},
    published_rounds=5600,
)

_HOSPITALS = Panel(
    name="hospitals",
    title="8 hospitals",
    job="hospitals.yaml",
    cases=(_PDMM, _GOSSIP),
    sizes={"small": (), "full": ()},
)

FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            name="1",
            title="{data} at eight sites with biased data",
            data="CIFAR-10",
            panels=(_CIFAR10,),
            seeds={"small": 1, "full": 3},
        ),
        Figure(
            name="2",
            title="{data} at eight hospitals",
            data="Chest X-rays",
            panels=(_HOSPITALS,),
            seeds={"small": 3, "full": 10},
            drawing="hospitals",
        ),
        Figure(
            name="paper",
            title="Logistic regression on {data}, eight sites with eight of ten classes",
            data="Fashion-MNIST",
            panels=(_DOUBLE_RING, _RANDOM),
            seeds={"small": 1, "full": 1},
        ),
    )
}
"""By the name that the command line knows it by."""


def find_figure(name: str) -> Figure:
    """The figure of that name; JobError with those there are."""
    if name not in FIGURES:
        raise JobError(f"there is no figure '{name}'; there are {', '.join(sorted(FIGURES))}")
    return FIGURES[name]


def check_size(size: str) -> None:
    """JobError unless it is one of SIZES."""
    if size not in SIZES:
        raise JobError(f"--size: {unknown('size', size, SIZES)}")
