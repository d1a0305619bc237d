"""MLflow: the federation is an experiment, each site of each run a run of it with both names as tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from concord.errors import EnvironmentProblem


class MLflow:
    """A Tracker that tells an MLflow server, or writes into a store, by its tracking URI."""

    def __init__(self, uri: str, federation: str) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric
        except ImportError as error:
            raise EnvironmentProblem(
                f"--mlflow needs what is not installed ({error}): pip install 'concord-edge[mlflow]'"
            ) from error
        self._uri = uri
        self._metric = Metric
        self._runs: dict[tuple[str, str], str] = {}
        with self._translated():
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(federation)
            self._experiment = found.experiment_id if found else self._client.create_experiment(federation)

    def log(self, run: str, site: str, step: int, values: Mapping[str, float], at: float) -> None:
        """See the port."""
        with self._translated():
            known = self._runs.get((run, site))
            if known is None:
                tags = {"concord.run": run, "concord.site": site}
                known = self._client.create_run(self._experiment, run_name=f"{run} {site}", tags=tags).info.run_id
                self._runs[run, site] = known
            points = [self._metric(name, value, round(at * 1000), step) for name, value in values.items()]
            self._client.log_batch(known, metrics=points)

    def close(self) -> None:
        """See the port."""
        with self._translated():
            for run_id in self._runs.values():
                self._client.set_terminated(run_id)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # stores raise what they like, a folder that is gone a bare Exception
            raise EnvironmentProblem(f"--mlflow {self._uri} cannot be used: {str(error)[:300]}") from error
