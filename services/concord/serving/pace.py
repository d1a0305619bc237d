"""How long the model takes for so many rows at once, learned from what it took. Pure: is told times, knows no clock."""

from __future__ import annotations

from concord.serving.predictor import ServedModel

_FASTER, _SLOWER = 0.5, 0.02
"""How much of a difference is believed: what took longer was more likely disturbed than what took less."""


class Pace:
    """A line through one row and many. Versions of a model are of one form, so what was learned goes on."""

    def __init__(self) -> None:
        self._one = 0.0
        self._more: float | None = None

    def expect(self, served: ServedModel, rows: int) -> float:
        """Seconds for a batch; before the first, as long for each row as its model took for one when it was loaded."""
        if self._more is None:
            return rows * served.seconds
        return self._one + self._more * (rows - 1)

    def learn(self, served: ServedModel, rows: int, seconds: float) -> None:
        """A batch took so long."""
        if self._more is None:
            self._one = self._more = served.seconds
        if rows == 1:
            self._one = _towards(self._one, seconds)
        else:
            self._more = _towards(self._more, max(0.0, (seconds - self._one) / (rows - 1)))


def _towards(known: float, new: float) -> float:
    return known + (_FASTER if new < known else _SLOWER) * (new - known)
