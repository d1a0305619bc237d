"""The server of the Flower app: federated averaging, and the accuracy of its model after each round."""

from __future__ import annotations

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits_app.task import WEIGHT, accuracy, build, load

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds."""
    config = context.run_config
    hidden, sites = int(config["hidden"]), int(config["sites"])
    torch.manual_seed(int(config["seed"]))
    model = build(hidden)
    inputs, targets = load()[1]

    def evaluate(_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            return MetricRecord({"accuracy": accuracy(model(inputs), targets)})

    # The server measures; asking the sites to do so as well would double the messages.
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites, weighted_by_key=WEIGHT)
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=int(config["rounds"]),
        evaluate_fn=evaluate,
    )
