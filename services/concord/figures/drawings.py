"""The functions that draw figures, by the names that definitions use. Each imports matplotlib when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from concord.figures import curves
from concord.figures.results import Drawn

Drawing = Callable[[Sequence[Path], Drawn], None]
"""Draws the same picture into every file; the names say the format."""

DRAWINGS: Mapping[str, Drawing] = {"curves": curves.draw_errors}
