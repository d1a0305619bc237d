"""docs/errors.md, made from the explanations that `concord explain` prints.

`python -m tools.error_docs` writes it; a test says when that was forgotten.
"""

from __future__ import annotations

import re
from pathlib import Path

from concord.apps.exchange_errors import REFUSAL_STATUS
from concord.cli.explanations import EXPLANATIONS, REFUSALS

_FILE = re.compile(r"(docs|services)/[\w-]+\.md")
PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
_HEAD = """# Errors

<!-- Made by `make error-docs` from services/concord/cli/explanations.py. -->

An error of the command line ends with a code, which keeps its meaning. `concord explain CE-104` prints what stands
here; with `--json` the error has it as `code`. The exit code is 2 for CE-1xx, 3 for CE-200, and 1 for the rest.
"""
_REFUSALS = """## Refused updates

An update that a site refuses stops nothing: it is answered with a status and a `reason`, counted in `refused` of the
edge in `/v1/status`, and the trainer never sees it.

| `reason` | status | why |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    parts = [
        f"## {code}\n\n**{found.title[0].upper()}{found.title[1:]}.** {found.cause}\n\n*What to do:* {found.remedy}\n"
        for code, found in EXPLANATIONS.items()
    ]
    rows = "\n".join(f"| `{reason}` | {REFUSAL_STATUS[reason]} | {why} |" for reason, why in REFUSALS.items())
    text = "\n".join([*parts, f"{_REFUSALS}{rows}\n"])
    return f"{_HEAD}\n{_FILE.sub(_linked, text)}"


def _linked(match: re.Match[str]) -> str:
    path = match[0]
    return f"[{path}]({path.removeprefix('docs/') if path.startswith('docs/') else f'../{path}'})"


if __name__ == "__main__":
    PAGE.write_text(page())
