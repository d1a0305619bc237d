"""The run file: what `up` leaves for other commands, so that they find the fleet that runs here.

It is `.concord/run.json` under the current folder, or what CONCORD_RUN_FILE says.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from concord.errors import EnvironmentProblem

RUN_FILE = Path(".concord/run.json")


@dataclass(frozen=True, slots=True)
class RunFile:
    """One running fleet: its name, its job file, the base URL of each site, and the process that runs it."""

    name: str
    job: str
    sites: Mapping[str, str]
    pid: int

    def alive(self) -> bool:
        """Whether the process that wrote the file is still there."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # it is there, and another user's
        return True


def run_file_path(environment: Mapping[str, str]) -> Path:
    """Where the run file is, or would be."""
    return Path(environment.get("CONCORD_RUN_FILE") or RUN_FILE)


def write_run_file(path: Path, run: RunFile) -> None:
    """Write the file whole or not at all; EnvironmentProblem if that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as draft:
            json.dump(asdict(run), draft, indent=2)
        os.replace(draft.name, path)
    except OSError as error:
        raise EnvironmentProblem(f"the run file {path} cannot be written: {error.strerror}") from error


def read_run_file(path: Path) -> RunFile | None:
    """The fleet that runs here; None if there is no file, or its process is gone.

    EnvironmentProblem if the file is there but is not a run file.
    """
    try:
        run = RunFile(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise EnvironmentProblem(f"{path} is not a run file: {error}; remove it") from error
    return run if run.alive() else None


def remove_run_file(path: Path) -> None:
    """Remove the file if it is there, and its folder if nothing else is in it."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def require_run_file(environment: Mapping[str, str]) -> RunFile:
    """The fleet that runs here; EnvironmentProblem with the remedy if there is none."""
    path = run_file_path(environment)
    run = read_run_file(path)
    if run is None:
        raise EnvironmentProblem(f"no running fleet is named in {path}; start one with `concord up`, or give --url")
    return run
