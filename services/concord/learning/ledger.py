"""What a site has spent of its privacy, on disk before it is spent: no crash makes the count too low.

The steps between two checkpoints are done twice after a crash, and both times their results may have left the site. So
a block of steps is written down before the first of them; one that ends on purpose gives back what it did not use.
Must not know how an epsilon comes of it.
"""

from __future__ import annotations

import json
from pathlib import Path

from concord.errors import CheckpointError
from concord.learning.accountant import Mechanism, Spent
from concord.learning.checkpoint import write_atomically

BLOCK = 50
"""Gradients written down at once: what a crash can cost on top of what was done."""
FILE = "privacy.json"


class Ledger:
    """How many gradients of each mechanism a site has computed, at most; in memory only if `directory` is None."""

    def __init__(self, directory: Path | None = None) -> None:
        self._path = None if directory is None else directory / FILE
        self.found = directory is None
        """Whether it was kept from the beginning of the site, or there was one already."""
        self.complete = True
        """Whether no life of the site is known of which it says nothing."""
        self._spent = self._read()
        self._reserved = dict(self._spent)

    @property
    def spent(self) -> Spent:
        """All that counts as computed."""
        return dict(self._spent)

    def spend(self, mechanism: Mechanism) -> None:
        """One more gradient is going to be computed; CheckpointError, and it must not be, if that cannot be noted."""
        done = self._spent.get(mechanism, 0) + 1
        if done > self._reserved.get(mechanism, 0):
            reserved = self._reserved | {mechanism: done - 1 + BLOCK}
            self._write(reserved)
            self._reserved = reserved
        self._spent[mechanism] = done

    def settle(self) -> None:
        """Give back what was written down and not used; from now on there is a file, if nothing was spent yet."""
        self._write(self._spent)
        self._reserved = dict(self._spent)

    def mark_incomplete(self) -> None:
        """Note that something was spent of which nothing is noted."""
        self.complete = False
        self._write(self._reserved)

    def _read(self) -> dict[Mechanism, int]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            noted = json.loads(self._path.read_text())
            spent = {Mechanism(float(noise), float(rate)): int(steps) for noise, rate, steps in noted["spent"]}
            self.complete = bool(noted["complete"])
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise CheckpointError(
                f"{self._path} does not tell what was spent of the privacy ({exc}): put back a copy of it; without it "
                "no epsilon is known"
            ) from exc
        self.found = True
        return spent

    def _write(self, spent: Spent) -> None:
        if self._path is None:
            return
        rows = [[one.noise_multiplier, one.sample_rate, steps] for one, steps in spent.items()]
        noted = {"complete": self.complete, "spent": rows}
        try:
            write_atomically(self._path, json.dumps(noted).encode())
        except OSError as exc:
            raise CheckpointError(
                f"{self._path} was not written ({exc.strerror or exc}), and without it private training stands still"
            ) from exc
