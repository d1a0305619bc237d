"""The table of values in the chart's README, made from the comments in values.yaml: `# -- ` before a key explains it.

`python -m tools.chart_docs` writes it; a test says when that was forgotten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

CHART = Path(__file__).parents[1] / "helm" / "concord"
BEGIN, END = "<!-- values: made by `make chart-docs` -->", "<!-- end of values -->"
_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):(?P<rest>.*)")
_LONGEST_DEFAULT = 60


@dataclass(frozen=True)
class Value:
    """One explained key: its dotted `path`, its `default` as JSON, what it means."""

    path: str
    default: str
    text: str


def explained(text: str) -> Iterator[Value]:
    """The explained keys of a values file, in its order."""
    defaults = yaml.safe_load(text)
    above: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# -- "):
            comment = [bare.removeprefix("# -- ")]
        elif bare.startswith("#") and comment:
            comment.append(bare.removeprefix("#").strip())
        elif match := _KEY.fullmatch(line):
            indent = len(match["indent"])
            above = [(depth, key) for depth, key in above if depth < indent] + [(indent, match["key"])]
            if comment:
                path = [key for _, key in above]
                yield Value(".".join(path), _default(defaults, path), " ".join(comment))
            comment = []
        else:
            comment = []


def _default(defaults: object, path: list[str]) -> str:
    value = defaults
    for key in path:
        value = value[key]  # type: ignore[index]
    text = json.dumps(value, separators=(", ", ": "))
    return text if len(text) <= _LONGEST_DEFAULT else "see values.yaml"


def table(text: str) -> str:
    """The explained keys as a Markdown table."""
    rows = [f"| `{value.path}` | `{value.default}` | {value.text} |" for value in explained(text)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])


def with_table(readme: str, values: str) -> str:
    """A README with its table made anew."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(values)}\n{END}{tail}"


if __name__ == "__main__":
    path = CHART / "README.md"
    path.write_text(with_table(path.read_text(), (CHART / "values.yaml").read_text()))
