"""Metrics for Prometheus: what there is (`catalogue`), where it is read, and how it is told (`registry`)."""
