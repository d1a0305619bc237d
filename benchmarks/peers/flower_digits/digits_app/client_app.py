"""A site of the Flower app: some steps of plain SGD from the server's model on the site's own samples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from digits_app.task import WEIGHT, Samples, build, load_site

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of one site."""
    config = context.run_config
    samples = _samples(int(context.node_config["partition-id"]))
    model = build(int(config["hidden"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    steps(model, samples, int(config["local-steps"]), int(config["batch-size"]), float(config["learning-rate"]))
    records = {
        "arrays": ArrayRecord(model.state_dict()),
        "metrics": MetricRecord({WEIGHT: 1.0}),
    }
    return Message(RecordDict(records), reply_to=message)


def steps(model: nn.Module, samples: Samples, count: int, batch_size: int, rate: float) -> None:
    """`count` steps of SGD in place."""
    optimizer = torch.optim.SGD(model.parameters(), rate)
    order = _batches(len(samples[1]), batch_size)
    for _ in range(count):
        batch = next(order)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(samples[0][batch]), samples[1][batch]).backward()
        optimizer.step()


def _batches(samples: int, size: int) -> Iterator[Tensor]:
    """Endless batches without replacement, all of one size, as those of the other side."""
    while True:
        order = torch.randperm(samples)
        for start in range(0, samples - size + 1, size):
            yield order[start : start + size]


@cache
def _samples(site: int) -> Samples:
    """Kept by the worker process, as Flower's own examples do."""
    return load_site(site)
