"""TensorBoard: one folder a run and site, so that all sites' curves of one name are one chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from concord.errors import EnvironmentProblem


class TensorBoard:
    """A Tracker that writes event files below `folder`, in the folder of the federation."""

    def __init__(self, folder: Path, federation: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise EnvironmentProblem(
                f"--tensorboard needs what is not installed ({error}): pip install 'concord-edge[tensorboard]'"
            ) from error
        self._make = SummaryWriter
        self._folder = folder / federation
        self._writers: dict[tuple[str, str], SummaryWriter] = {}

    def log(self, run: str, site: str, step: int, values: Mapping[str, float], at: float) -> None:
        """See the port."""
        try:
            writer = self._writers.get((run, site))
            if writer is None:
                writer = self._writers[run, site] = self._make(str(self._folder / run / site))
            for name, value in values.items():
                writer.add_scalar(name, value, step, walltime=at)
        except OSError as error:
            raise EnvironmentProblem(f"--tensorboard {self._folder} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """See the port."""
        for writer in self._writers.values():
            writer.close()
