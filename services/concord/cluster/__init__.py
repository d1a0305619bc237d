"""The Kubernetes API: the one layer that knows the `kubernetes` package. Must not know sites or topologies."""
