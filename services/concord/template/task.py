"""The model and the data of $name: change both to yours. `load` runs at each site, and what it returns stays there."""

import torch
from torch import Tensor, nn

KINDS = 4


def build() -> nn.Module:
    """Any module from a batch of inputs to a batch of outputs; for cross entropy, one logit per class."""
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, KINDS))


def load(site: str, sites: tuple[str, ...]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """One site's (train, validation), each a pair (inputs, targets).

    Here a site has met two kinds of parts out of four and is tested on all of them, so alone it cannot learn the task.
    """
    place = sites.index(site)
    met = [place % KINDS, (place + 1) % KINDS]
    return parts(met, each=200, seed=place), parts(range(KINDS), each=100, seed=1000)


def parts(kinds: list[int] | range, each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two measurements of each part (n, 2) float32, and of which kind it is (n,) int64; `each` of every kind."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor(list(kinds)).repeat_interleave(each)
    typical = torch.stack([targets % 2, targets // 2], dim=1) * 2.0 - 1.0
    return typical + 0.6 * torch.randn(len(targets), 2, generator=generator), targets
