"""The table of alerts in docs/monitoring.md, made from the rules.

`python -m tools.alert_docs` writes it; a test says when that was forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tools.render_manifests import ROOT, RULES

PAGE = ROOT / "docs" / "monitoring.md"
BEGIN, END = "<!-- alerts: made by `make alert-docs` -->", "<!-- end of alerts -->"
_LABEL = re.compile(r"\{\{ \$labels\.(\w+) \}\}")


def alerts(rules: str) -> Iterator[dict[str, Any]]:
    """The alerts of a file of rules, in its order."""
    for group in yaml.safe_load(rules)["groups"]:
        yield from (rule for rule in group["rules"] if "alert" in rule)


def table(rules: str) -> str:
    """The alerts as a Markdown table, each with a link to its runbook."""
    return "\n".join(["| alert | severity | after | says |", "|---|---|---|---|", *map(_row, alerts(rules))])


def _row(alert: dict[str, Any]) -> str:
    name, after = alert["alert"], alert.get("for", "at once")
    says = _LABEL.sub(lambda match: match[1].upper(), alert["annotations"]["summary"])
    return f"| [{name}](runbooks/{name}.md) | {alert['labels']['severity']} | {after} | {says} |"


def with_table(page: str, rules: str) -> str:
    """A page with its table made anew."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(rules)}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(), RULES.read_text()))
