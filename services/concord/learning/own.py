"""Somebody's own functions as parts of a task: called with what they take, and what they return is checked.

What a data function may look like is told in `is_by_site`. Must not know where the functions came from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from concord.errors import TaskError
from concord.learning.objectives import Loss, Metric
from concord.learning.reference import Reference
from concord.learning.samples import Pool, Samples, SiteData, as_samples, kind_of

HELD_OUT = 5
"""One in so many samples of a site validates if its data function does not say which."""


def model_builder(reference: Reference, options: Mapping[str, object]) -> Callable[[], nn.Module]:
    """Builds with the reference's function, given nothing but `options` by name; it returns a module."""

    def build() -> nn.Module:
        module = reference.call(**options)
        if not isinstance(module, nn.Module):
            raise TaskError(f"{reference} returned {kind_of(module)}; it must return a torch.nn.Module")
        return module

    return build


def is_by_site(reference: Reference, options: Mapping[str, object]) -> bool:
    """Whether a data function loads one site's data, `load(site, sites)`, or all of it, `load()`.

    It is by site if its first two parameters are called so, or if exactly two must be given besides
    `options`. TaskError if it must be given another number.
    """
    parameters = [parameter for parameter in reference.parameters() if parameter.name not in options]
    required = [parameter for parameter in parameters if parameter.default is inspect.Parameter.empty]
    if [parameter.name for parameter in parameters[:2]] == ["site", "sites"] or len(required) == 2:
        return True
    if required:
        names = ", ".join(parameter.name for parameter in required)
        raise TaskError(f"{reference} takes ({names}); it must take nothing, or (site, sites)")
    return False


def pool_loader(reference: Reference, options: Mapping[str, object]) -> Callable[[], Pool]:
    """Loads with a function that returns (train, test), each Samples or a pair of tensors (x, y)."""

    def load() -> Pool:
        value = reference.call(**options)
        if isinstance(value, Pool):
            return value
        if not isinstance(value, tuple | list) or len(value) != 2 or isinstance(value[0], Tensor):
            raise TaskError(f"{reference} returned {kind_of(value)}; it must return a pair (train, test)")
        return Pool(as_samples(value[0], f"{reference}: train"), as_samples(value[1], f"{reference}: test"))

    return load


def site_loader(reference: Reference, options: Mapping[str, object]) -> Callable[[str, Sequence[str]], SiteData]:
    """Loads with a function of (site, sites) that returns SiteData, (train, validation) or plain samples.

    Of plain samples one in HELD_OUT, chosen by a fixed seed, validates and the others train.
    """

    def load(site: str, sites: Sequence[str]) -> SiteData:
        value = reference.call(site, tuple(sites), **options)
        origin = f"{reference} for site {site!r}"
        if isinstance(value, SiteData):
            return value
        if isinstance(value, tuple | list) and len(value) == 2 and not isinstance(value[0], Tensor):
            return SiteData(as_samples(value[0], f"{origin}: train"), as_samples(value[1], f"{origin}: validation"))
        return _hold_out(as_samples(value, origin))

    return load


def loss(reference: Reference) -> Loss:
    """A loss function of (outputs, targets) that returns a scalar tensor."""

    def call(outputs: Tensor, targets: Tensor) -> Tensor:
        value = reference.call(outputs, targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else kind_of(value)
            raise TaskError(f"{reference} returned {found}; it must return the mean loss as a scalar tensor")
        return value

    return call


def metric(reference: Reference) -> Metric:
    """A metric function of (outputs, targets) that returns a number."""

    def call(outputs: Tensor, targets: Tensor) -> Tensor | float:
        value = reference.call(outputs, targets)
        if isinstance(value, Tensor) and value.numel() == 1:
            return value
        if isinstance(value, float | int):
            return float(value)
        raise TaskError(f"{reference} returned {kind_of(value)}; it must return one number")

    return call


def _hold_out(samples: Samples) -> SiteData:
    if len(samples) < 2:
        return SiteData(samples, samples)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    held_out = max(1, len(samples) // HELD_OUT)
    return SiteData(samples.select(order[held_out:]), samples.select(order[:held_out]))
