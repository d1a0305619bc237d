"""Experiment trackers: where the curves of a run are kept beside those of other runs. Each is an extra of its own."""
