"""Eight sites at full traffic under faults for a long time: does anything grow? `make soak`; docs/faults.md."""
