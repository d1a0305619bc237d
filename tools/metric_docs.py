"""docs/metrics.md, made from the catalogue in the code.

`python -m tools.metric_docs` writes it; a test says when that was forgotten.
"""

from __future__ import annotations

from pathlib import Path

from concord.telemetry.catalogue import GROUPS, Group

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
_HEAD = """# Metrics

<!-- Made by `make metric-docs` from services/concord/telemetry/catalogue.py. -->

Every process answers `GET /metrics` on its plain port, where its health and `/v1/status` are: in Prometheus' text
format, or as OpenMetrics for who asks for that. Reading it changes nothing and asks nobody else. The label `site` is
added by whoever scrapes: [monitoring](monitoring.md) says how, and has dashboards and alerts.

What is not there, such as an edge that is gone or a budget that was not set, has no series. `site` is the process that
is trainer, exchange and inference in one. Each process has `process_*` (memory, processor, open files) besides.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *map(_section, GROUPS)])


def _section(group: Group) -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in group.metrics
    ]
    head = f"## {group.title}\n\nOf {', '.join(f'`{one}`' for one in group.processes)}.\n"
    return "\n".join([head, "| metric | type | labels | what |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
