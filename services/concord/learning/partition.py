"""Deals the samples of a pool out to sites, evenly or with a seeded bias. Must not know what the samples are.

Whatever the kind, every sample goes to exactly one part and every part gets at least one; without shards a part is a
site's. Where samples have several
labels each, or none, each counts as of the class of its rarest label, or of one more class; where they come in groups
that must stay together, such as the pictures of one patient, groups are dealt out and counted.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from concord.errors import SplitError
from concord.learning.units import is_multi_label, kinds_of, units_of
from concord.suggest import unknown

Shares = dict[str, list[int]]
_Groups = list[list[int]]
_WINDOW_WEIGHTS = (0.8, 1.0)  # between these lies the weight that a holder of a class gets its part by


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How to deal out; every kind reads `seed` and its own fields.

    `classes-per-site`: each site holds between `classes[0]` and `classes[1]` classes. `dirichlet`: each class
    is shared out by a draw from a Dirichlet distribution; a smaller `alpha` (> 0) means more bias, in number as well as
    in kind; sites below `minimum` are given some of those that have most.
    `windows`: the classes lie in a circle, in random order; each site holds `width` of them in a row, beginning
    `stride` classes after the site before, and the holders of a class get about the same number (Niwa et al., 2021).
    `quantity`: every site has all labels alike, but sizes drawn from a Dirichlet distribution of `alpha`, at
    least `minimum` samples each. `iid`: the same number for all, at random.

    With `shards` the samples are dealt out to that many parts, whatever the number of sites, so that a site that
    comes changes nobody's data: a site holds the part that `shard` names, or that of its position, counted round.
    """

    kind: str = "classes-per-site"
    classes: tuple[int, int] = (2, 3)
    alpha: float = 0.5
    minimum: int = 1
    width: int = 2
    stride: int = 2
    seed: int = 0
    shards: int | None = None
    shard: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """One row of a split's table: how many samples of each class a site holds, in class order, and how many in all.

    A sample may have several labels and is then counted for each, or none, and is counted as `unlabelled`.
    """

    site: str
    counts: tuple[int, ...]
    total: int
    unlabelled: int = 0

    @property
    def held(self) -> tuple[int, ...]:
        """The classes of which the site has at least one sample, ascending."""
        return tuple(index for index, count in enumerate(self.counts) if count)


def split(
    targets: Tensor, sites: Sequence[str], options: SplitOptions, groups: Tensor | None = None
) -> dict[str, Tensor]:
    """Indices (k,) int64, ascending, of each site's samples; equal arguments give equal results everywhere.

    `targets` (n,) holds one integer class per sample, or (n, labels) 0/1; for `iid` any shape (n, ...) will do.
    Samples with the same number in `groups` (n,) go to the same site. SplitError if the samples cannot be dealt out as
    asked; it says what would be possible.
    """
    if options.kind not in _DEALERS:
        raise SplitError(f"split.kind: {unknown('split', options.kind, _DEALERS)}")
    alike = torch.zeros(len(targets), dtype=torch.int64)
    units = units_of(alike if options.kind == "iid" else kinds_of(targets, f"split.kind: {options.kind}"), groups)
    parts = _parts(sites, options)
    holders = list(sites) if options.shards is None else [str(part) for part in range(options.shards)]
    _check_sites(len(units.members), holders, "samples" if groups is None else "groups of samples")
    rng = random.Random(options.seed)  # noqa: S311, a seed for repeatable results and no secret
    shares = _DEALERS[options.kind](units.kinds, holders, options, rng)
    dealt = {
        site: sorted(index for unit in shares[part] for index in units.members[unit]) for site, part in parts.items()
    }
    return {site: torch.tensor(indices, dtype=torch.int64) for site, indices in dealt.items()}


def class_counts(targets: Tensor, shares: Mapping[str, Tensor], classes: int | None = None) -> tuple[ClassCounts, ...]:
    """A split as a table, a row per site; `classes` is the number of columns (default: as few as do)."""
    if is_multi_label(targets):
        return tuple(_label_counts(site, targets[indices]) for site, indices in shares.items())
    kinds = kinds_of(targets, "a table of class counts").long()
    columns = max(classes or 0, int(kinds.max()) + 1 if len(kinds) else 0)
    return tuple(
        ClassCounts(site, tuple(torch.bincount(kinds[indices], minlength=columns).tolist()), len(indices))
        for site, indices in shares.items()
    )


def _label_counts(site: str, targets: Tensor) -> ClassCounts:
    unlabelled = int((targets.sum(dim=1) == 0).sum())
    return ClassCounts(site, tuple(targets.sum(dim=0).long().tolist()), len(targets), unlabelled)


def _by_classes(targets: Tensor, sites: Sequence[str], options: SplitOptions, rng: random.Random) -> Shares:
    groups = _shuffled_groups(targets, rng)
    widths = _classes_of_sites(len(groups), len(sites), options.classes, rng)
    shares: Shares = {site: [] for site in sites}
    for members, holders in zip(groups, _holders(len(groups), sites, widths, rng), strict=True):
        if len(members) < len(holders):
            raise SplitError(
                f"split.classes: {len(holders)} sites should share a class of {len(members)} samples; "
                f"ask for fewer classes per site or fewer sites"
            )
        for position, site in enumerate(holders):
            shares[site] += members[position :: len(holders)]
    return shares


def _classes_of_sites(classes: int, sites: int, bounds: tuple[int, int], rng: random.Random) -> list[int]:
    """How many classes each site holds: as even a spread over the bounds as covers every class."""
    low, high = bounds
    if not 1 <= low <= high <= classes:
        raise SplitError(f"split.classes: [{low}, {high}] must be an ascending pair within 1..{classes}")
    if sites * high < classes:
        raise SplitError(
            f"split.classes: {sites} sites of at most {high} classes cannot hold all {classes}; "
            f"the upper number must be at least {math.ceil(classes / sites)}"
        )
    widths = [low + position % (high - low + 1) for position in range(sites)]
    for position in range(sites):
        widths[position] += min(high - widths[position], max(0, classes - sum(widths)))
    rng.shuffle(widths)
    return widths


def _holders(classes: int, sites: Sequence[str], widths: list[int], rng: random.Random) -> list[list[str]]:
    """For each class its sites, their numbers as equal as possible.

    Widest site first, each takes the classes with most copies left (Gale-Ryser), so the deal always comes out
    even.
    """
    places, extra = divmod(sum(widths), classes)
    copies = [places + (position < extra) for position in range(classes)]
    rng.shuffle(copies)
    holders: list[list[str]] = [[] for _ in range(classes)]
    order = rng.sample(range(len(sites)), len(sites))
    for index in sorted(order, key=lambda position: -widths[position]):
        ranked = sorted(rng.sample(range(classes), classes), key=lambda label: -copies[label])
        for label in ranked[: widths[index]]:
            copies[label] -= 1
            holders[label].append(sites[index])
    return holders


def _by_dirichlet(targets: Tensor, sites: Sequence[str], options: SplitOptions, rng: random.Random) -> Shares:
    _check_minimum(options.minimum, len(targets), len(sites))
    shares: Shares = {site: [] for site in sites}
    for members in _shuffled_groups(targets, rng):
        sizes = _apportion(_dirichlet(options.alpha, len(sites), rng), len(members))
        _cut(members, sites, sizes, shares)
    return _with_minimum(shares, options.minimum)


def _by_windows(targets: Tensor, sites: Sequence[str], options: SplitOptions, rng: random.Random) -> Shares:
    groups = _shuffled_groups(targets, rng)
    shares: Shares = {site: [] for site in sites}
    for members, holders in zip(groups, _holders_by_window(len(groups), sites, options, rng), strict=True):
        weights = [rng.uniform(*_WINDOW_WEIGHTS) for _ in holders]
        sizes = _apportion([weight / sum(weights) for weight in weights], len(members))
        _cut(members, holders, sizes, shares)
    return _with_minimum(shares)


def _holders_by_window(
    classes: int, sites: Sequence[str], options: SplitOptions, rng: random.Random
) -> list[list[str]]:
    """For each class the sites whose window it lies in."""
    if not 1 <= options.width <= classes:
        raise SplitError(f"split.width: {options.width} must be within 1..{classes}, the number of classes")
    circle = rng.sample(range(classes), classes)
    holders: list[list[str]] = [[] for _ in range(classes)]
    for position, site in enumerate(sites):
        for place in range(options.width):
            holders[circle[(position * options.stride + place) % classes]].append(site)
    if not all(holders):
        raise SplitError(
            f"split.width: windows of {options.width}, {options.stride} apart, leave classes out at {len(sites)} sites"
            "; make them wider"
        )
    return holders


def _evenly(targets: Tensor, sites: Sequence[str], _options: SplitOptions, rng: random.Random) -> Shares:
    order = rng.sample(range(len(targets)), len(targets))
    return {site: order[position :: len(sites)] for position, site in enumerate(sites)}


def _by_quantity(targets: Tensor, sites: Sequence[str], options: SplitOptions, rng: random.Random) -> Shares:
    _check_minimum(options.minimum, len(targets), len(sites))
    spare = len(targets) - options.minimum * len(sites)
    sizes = [options.minimum + size for size in _apportion(_dirichlet(options.alpha, len(sites), rng), spare)]
    # Spreading each class evenly over [0, 1) makes every slice of the order hold all classes in proportion.
    keyed = [
        ((rank + rng.random()) / len(members), index)
        for members in _shuffled_groups(targets, rng)
        for rank, index in enumerate(members)
    ]
    shares: Shares = {site: [] for site in sites}
    _cut([index for _, index in sorted(keyed)], sites, sizes, shares)
    return shares


def _shuffled_groups(targets: Tensor, rng: random.Random) -> _Groups:
    """The indices of each class that occurs, ascending by class, each group shuffled."""
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(targets.tolist()):
        groups.setdefault(label, []).append(index)
    ordered = [groups[label] for label in sorted(groups)]
    for members in ordered:
        rng.shuffle(members)
    return ordered


def _dirichlet(alpha: float, size: int, rng: random.Random) -> list[float]:
    """One draw from the symmetric Dirichlet distribution, as normalised gamma variates."""
    if not 1e-3 <= alpha <= 1e6:
        raise SplitError(f"split.alpha: {alpha} must be within 0.001..1000000")
    draws = [rng.gammavariate(alpha, 1.0) for _ in range(size)]
    if sum(draws) == 0.0:  # every variate of a tiny alpha may underflow; the limit is all at one site
        draws[rng.randrange(size)] = 1.0
    return [draw / sum(draws) for draw in draws]


def _apportion(weights: list[float], total: int) -> list[int]:
    """Whole numbers in proportion to `weights` (sum 1) that add up to `total`: largest remainders first."""
    sizes = [math.floor(weight * total) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: sizes[i] - weights[i] * total)
    for index in by_remainder[: total - sum(sizes)]:
        sizes[index] += 1
    return sizes


def _cut(members: list[int], sites: Sequence[str], sizes: list[int], shares: Shares) -> None:
    start = 0
    for site, size in zip(sites, sizes, strict=True):
        shares[site] += members[start : start + size]
        start += size


def _with_minimum(shares: Shares, minimum: int = 1) -> Shares:
    """Give each site that has fewer than `minimum` some of the site that has most."""
    for share in shares.values():
        while len(share) < minimum:
            share.append(max(shares.values(), key=len).pop())
    return shares


def _check_minimum(minimum: int, total: int, sites: int) -> None:
    if not 1 <= minimum <= total // sites:
        raise SplitError(
            f"split.minimum: {minimum} must be within 1..{total // sites} for {total} samples at {sites} sites"
        )


def _parts(sites: Sequence[str], options: SplitOptions) -> dict[str, str]:
    """The part that each site holds: its own, or one of the shards."""
    if options.shards is None:
        return {site: site for site in sites}
    numbers = {site: options.shard.get(site, position % options.shards) for position, site in enumerate(sites)}
    for site, number in numbers.items():
        if not 0 <= number < options.shards:
            raise SplitError(f"sites.{site}.shard: should be from 0 to {options.shards - 1}, found {number}")
    return {site: str(number) for site, number in numbers.items()}


def _check_sites(number: int, sites: Sequence[str], what: str) -> None:
    if not sites or len(set(sites)) != len(sites):
        raise SplitError("sites: at least one is needed, and each name once")
    if number < len(sites):
        raise SplitError(f"sites: {number} {what} cannot give each of {len(sites)} sites one")


_DEALERS: Mapping[str, Callable[[Tensor, Sequence[str], SplitOptions, random.Random], Shares]] = {
    "classes-per-site": _by_classes,
    "dirichlet": _by_dirichlet,
    "iid": _evenly,
    "quantity": _by_quantity,
    "windows": _by_windows,
}
SPLIT_KINDS = tuple(_DEALERS)
"""The kinds of split that a job may name."""
