"""Linear regression of which a part is common to all sites and a part is each site's own, with a known optimum.

A task as a job names it: `{model: "personal:build", data: "personal:load", loss: mean_squared_error, metric:
"personal:error"}`, with the option `coupled` for both functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

COMMON, OWN, SAMPLES = 3, 2, 24


class Personal(nn.Module):
    """Two linear maps of different inputs: summed if `coupled`, else side by side, so that neither sees the other."""

    def __init__(self, coupled: bool) -> None:
        super().__init__()
        self.head = nn.Linear(OWN, 1, bias=False)
        self.body = nn.Linear(COMMON, 1, bias=False)
        self._coupled = coupled

    def forward(self, inputs: Tensor) -> Tensor:
        common, own = self.body(inputs[:, :COMMON]), self.head(inputs[:, COMMON:])
        return common + own if self._coupled else torch.cat([common, own], dim=1)


def build(coupled: bool = True) -> nn.Module:
    """The model."""
    return Personal(coupled)


def load(site: str, sites: Sequence[str], coupled: bool = True) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and validation samples, the same."""
    generator = torch.Generator().manual_seed(list(sites).index(site))
    inputs = torch.randn(SAMPLES, COMMON + OWN, generator=generator)
    targets = torch.randn(SAMPLES, 1 if coupled else 2, generator=generator)
    return (inputs, targets), (inputs, targets)


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error."""
    return (outputs - targets).square().mean()


def optimum(sites: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The common part (COMMON,) and the own parts (sites, OWN) that minimise the sum of the coupled losses."""
    rows, targets = [], []
    for index, site in enumerate(sites):
        (inputs, wanted), _ = load(site, sites)
        row = torch.zeros(SAMPLES, COMMON + OWN * len(sites), dtype=torch.float64)
        row[:, :COMMON] = inputs[:, :COMMON]
        row[:, COMMON + OWN * index : COMMON + OWN * (index + 1)] = inputs[:, COMMON:]
        rows.append(row)
        targets.append(wanted.double())
    best = torch.linalg.lstsq(torch.cat(rows), torch.cat(targets)).solution[:, 0]
    return best[:COMMON], best[COMMON:].view(len(sites), OWN)


class Normed(nn.Module):
    """For the digits: a norm with running averages between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.norm(self.body(inputs))
        scores: Tensor = self.head(hidden.relu())
        return scores


def build_normed() -> nn.Module:
    """A model for the digits."""
    return Normed()
