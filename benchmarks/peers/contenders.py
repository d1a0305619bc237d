"""The two sides: what is installed for each, into an environment of its own, and how its user starts it.

Nothing is installed into the project's environment, and nothing is left running.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import psutil

from benchmarks.split_site import HOST, free_port
from concord.job import Job

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
JOB = HERE / "concord_digits.yaml"
APP = HERE / "flower_digits"
FLOWER = "flwr[simulation]==1.41.0"
CONSTRAINTS = ROOT / "constraints.txt"
_PATIENCE = 120.0
"""Seconds for Flower's service to answer; its own command gives it 15, which a busy machine may exceed."""
_GRACE = 15.0
"""Seconds for what that service has started to end after it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with the data, the app, the marks and whatever a run writes."""

    folder: Path

    @property
    def app(self) -> Path:
        """A copy, because Flower may edit it."""
        return self.folder / "app"

    def environment(self, bin_folder: Path) -> dict[str, str]:
        """As in a shell in which that virtual environment is active."""
        return {
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(bin_folder.parent),
            "PEERS_FOLDER": str(self.folder),
        }


class Contender(Protocol):
    """One row of the table. `models` is how many models are measured after each round."""

    @property
    def name(self) -> str: ...
    @property
    def models(self) -> int: ...
    @property
    def command(self) -> Sequence[str]: ...
    @property
    def environment(self) -> Mapping[str, str]: ...

    def service(self) -> AbstractContextManager[None]:
        """What must run beside the command; its start is not counted."""
        ...


class Concord:
    """`concord simulate`, with one algorithm."""

    def __init__(self, place: Place, python: Path, algorithm: str, models: int) -> None:
        self.name = f"Concord, {algorithm}"
        self.models = models
        words = (str(python.parent / "concord"), "simulate", str(JOB), "--no-reference")
        self.command = (*words, "--out", str(place.folder / "simulate"), "--set", f"algorithm={algorithm}")
        self.environment = place.environment(python.parent)

    def service(self) -> AbstractContextManager[None]:
        """None."""
        return nullcontext()


class Flower:
    """`flwr run` against a SuperLink that is up already, as for all runs of a user but the first."""

    models = 1

    def __init__(self, place: Place, python: Path, job: Job) -> None:
        self.name = "Flower, FedAvg"
        self.starts: list[float] = []
        """Seconds that each start of the service took."""
        self._ports = (free_port(), free_port())
        self._log = place.folder / "superlink.log"
        self._superlink = str(python.parent / "flower-superlink")
        federation = f"num-supernodes={len(job.site_names)} client-resources-num-cpus=1"
        words = (str(python.parent / "flwr"), "run", str(place.app), "--stream")
        self.command = (*words, "--federation-config", federation, "--run-config", _run_config(job))
        self.environment = place.environment(python.parent) | {
            "FLWR_HOME": str(place.folder / "flower-home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(self._ports[0]),
            "FLWR_LOCAL_CONTROL_API_PORT": str(self._ports[1]),
        }

    @contextmanager
    def service(self) -> Iterator[None]:
        """A SuperLink with its state in memory."""
        words = [self._superlink, "--insecure", "--simulation", "--isolation", "subprocess"]
        words += ["--host", HOST, "--port", str(self._ports[0]), "--control-api-address", f"{HOST}:{self._ports[1]}"]
        began = time.monotonic()
        with (
            self._log.open("a") as log,
            subprocess.Popen(words, env=dict(self.environment), stdout=log, stderr=log) as process,
        ):
            try:
                self._wait(process)
                self.starts.append(time.monotonic() - began)
                yield
            finally:
                started = psutil.Process(process.pid).children(recursive=True)
                process.terminate()
                _end([*started, *self._strays()])

    def _strays(self) -> Iterator[psutil.Process]:
        """Workers whose parents ended before them, told by the folder in their environment."""
        folder = self.environment["PEERS_FOLDER"]
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("PEERS_FOLDER") == folder:
                yield process

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"http://{HOST}:{self._ports[0]}/health", timeout=1.0).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise TimeoutError(f"flower-superlink does not answer; {self._log} may say why")


def _end(processes: Sequence[psutil.Process]) -> None:
    """Wait until they have ended; kill what has not in good time."""
    deadline = time.monotonic() + _GRACE
    while any(map(_lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in filter(_lives, processes):
        process.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _run_config(job: Job) -> str:
    """The numbers of the job, under the app's names."""
    training = job.training
    values = {
        "rounds": training.rounds,
        "sites": len(job.site_names),
        "local-steps": training.local_steps,
        "batch-size": training.batch_size,
        "learning-rate": training.learning_rate,
        "hidden": job.task.options["hidden"],
        "seed": training.seed,
    }
    return " ".join(f"{key}={value}" for key, value in values.items())


def install(folder: Path, *words: str) -> Path:
    """The interpreter of a virtual environment with what these words of pip's ask for; once, until they change."""
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join((*words, CONSTRAINTS.read_text()))
    if not (done.is_file() and done.read_text() == wanted):
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *words], check=True)
        done.write_text(wanted)
    return python


def install_concord(folder: Path) -> Path:
    """What a user of the simulator installs."""
    return install(folder / "concord", "--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}[plots]")


def install_flower(folder: Path) -> Path:
    """Flower with the same torch; the project's other versions are not all allowed beside it."""
    torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    return install(folder / "flower", FLOWER, torch)


def fresh_app(place: Place) -> None:
    """The app as it is in the project."""
    shutil.rmtree(place.app, ignore_errors=True)
    shutil.copytree(APP, place.app, ignore=shutil.ignore_patterns("__pycache__"))
