"""The dashboards for Grafana as code: one file each, on the parts of parts.py. Knows metrics by name only."""

import warnings

with warnings.catch_warnings():
    # The second schema is of the newest Grafana alone; the first is read by all of them, and by the sidecar.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import dashboard, table  # noqa: F401
