"""The names a job file may use, listed here so that checking a job need not import torch.

A test holds these lists equal to the registries that own the names.
"""

from __future__ import annotations

ALGORITHMS = (
    "ecl",
    "ecl-isvr",
    "c-ecl",
    "sm-ecl",
    "gossip",
    "dpsgd",
    "dpsgd-every-step",
    "ad-psgd",
    "d2",
    "relay-sgd",
    "gradient-tracking",
    "momentum-tracking",
    "qg-dsgdm",
    "local",
)
SERVER_ALGORITHMS = ("fedavg", "fedprox", "scaffold")
"""Those that need a server, which only a simulation has."""
ALGORITHMS_OF_TWO_STEPS = ("ecl-isvr", "c-ecl")
"""Those whose terms hold 1 / (K - 1), K being the local steps of a round."""
ALGORITHM_OPTIONS = {
    "penalty": ("ecl",),
    "preconditioner": ("ecl", "ecl-isvr", "c-ecl"),
    "compression": ("c-ecl",),
    "keep": ("c-ecl",),
    "number_format": ("c-ecl",),
    "momentum": ("momentum-tracking", "qg-dsgdm"),
    "proximal": ("fedprox",),
}
"""Options that it would be a mistake to give to an algorithm that does not read them, and those that do."""
PRECONDITIONERS = ("none", "adam")
COMPRESSIONS = ("none", "random-k", "top-k", "low-rank")
NUMBER_FORMATS = ("full", "float16", "int8")
"""What a message of c-ecl tells of the model, and how numbers travel in it."""

LOSSES = ("cross_entropy", "binary_cross_entropy", "mean_squared_error")
METRICS = ("accuracy", "label_accuracy", "auc")
TASKS = ("digits", "cifar10", "fashion-mnist", "chest-xray")

SPLIT_OPTIONS = {
    "classes-per-site": ("classes",),
    "dirichlet": ("alpha", "minimum"),
    "iid": (),
    "quantity": ("alpha", "minimum"),
    "windows": ("width", "stride"),
}
"""Each kind of split, and the options (besides `seed`) that have a meaning for it."""

TOPOLOGY_OPTIONS = {
    "ring": (),
    "double-ring": (),
    "multiplex-ring": (),
    "star": (),
    "chain": (),
    "grid": ("columns",),
    "complete": (),
    "exponential": (),
    "random-regular": ("degree", "seed"),
    "edges": ("edges",),
}
"""Each kind of topology, and the options it takes."""

JITTERS = ("constant", "uniform", "exponential")
"""How the latency of a simulated link is distributed around its mean."""
BATCHING = ("auto", "off")
"""Whether simulated sites may compute their gradients together."""
