"""The container engine's command line, and the promise that nothing made through it outlives the tests."""

from __future__ import annotations

import json
import subprocess
from typing import Any

LABEL = "concord.containers-test"
PATIENCE = 120.0
"""Seconds that one command of the engine may take."""


class EngineError(Exception):
    """The engine refused or could not be run; the message is what it said."""


class Engine:
    """One run's use of the engine: whatever it creates is labelled with `run`, so that it can be found and removed."""

    def __init__(self, program: str, run: str) -> None:
        self._program = program
        self._label = f"{LABEL}={run}"
        self.run = run

    def call(self, *arguments: str, timeout: float = PATIENCE) -> str:
        """What a command printed, errors included; EngineError if it failed or took too long."""
        try:
            done = subprocess.run(
                [self._program, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(str(error)) from error
        if done.returncode:
            raise EngineError(f"{' '.join(arguments)}: {done.stdout.strip()}")
        return done.stdout.strip()

    def inspect(self, kind: str, name: str) -> Any:
        """Everything that the engine knows of a thing."""
        return json.loads(self.call(kind, "inspect", name))[0]

    def create(self, kind: str, name: str) -> str:
        """Make a network or a volume; its name."""
        return self.call(kind, "create", "--label", self._label, name)

    def start(self, *arguments: str) -> None:
        """Start a container in the background."""
        self.call("run", "--detach", "--label", self._label, *arguments)

    def make(self, *arguments: str) -> None:
        """Make a container, to be started later."""
        self.call("create", "--label", self._label, *arguments)

    def once(self, *arguments: str) -> str:
        """Run a container to its end; what it printed. EngineError if it failed."""
        return self.call("run", "--rm", "--label", self._label, *arguments)

    def remove_everything(self) -> None:
        """Remove all that this run made, whatever state it is in."""
        only_ours = ("--quiet", "--filter", f"label={self._label}")
        for kind, listing, remove in (
            ("container", ("ls", "--all"), ("rm", "--force", "--volumes")),
            ("volume", ("ls",), ("rm", "--force")),
            ("network", ("ls",), ("rm",)),
        ):
            names = self.call(kind, *listing, *only_ours).split()
            if names:
                self.call(kind, *remove, *names)
