"""All dashboards, as the texts of their files."""

from __future__ import annotations

from pathlib import Path

from tools.dashboards import fleet, inference, site
from tools.dashboards.parts import text_of

FOLDER = Path(__file__).parents[2] / "helm" / "concord" / "dashboards"


def texts() -> dict[str, str]:
    """The text of each file by its name."""
    boards = {"fleet": fleet.build, "site": site.build, "inference": inference.build}
    return {f"{name}.json": text_of(build()) for name, build in boards.items()}
