"""The same federated work here and in other systems, side by side: `python -m benchmarks.peers`."""
