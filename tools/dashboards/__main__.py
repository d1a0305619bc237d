"""Writes the dashboards: `python -m tools.dashboards`; a test says when that was forgotten.

`--runbooks https://docs.example/runbooks/{alert}.html --out FOLDER` writes them for an import by hand, with links that
lead to where you publish the runbooks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.dashboards.all import FOLDER, texts
from tools.dashboards.parts import RUNBOOK


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    parser.add_argument("--runbooks", help="where the runbooks are; {alert} stands for the alert's name")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        if given.runbooks:
            text = text.replace(RUNBOOK, given.runbooks.replace("{alert}", "${__data.fields.alert}"))
        (given.out / name).write_text(text)


if __name__ == "__main__":
    main()
