"""Users for Locust: `locust -f loadtest/locustfile.py --headless --host URL`, or better `python -m loadtest`.

What it needs comes from the environment: LOADTEST_PROFILE, LOADTEST_OUT (a folder for results), and for neighbours
LOADTEST_JOB, LOADTEST_SENDER, LOADTEST_RECEIVER and LOADTEST_SECRET_FILE.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterator
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from locust import FastHttpUser, LoadTestShape, between, events, task

from loadtest.objectives import Outcome, read_objectives, table, violations
from loadtest.profiles import PROFILES

if TYPE_CHECKING:
    from loadtest.neighbour import Push

PROFILE = os.environ.get("LOADTEST_PROFILE", "smoke")
_REFUSED = "429"


class Stages(LoadTestShape):
    """The users that the profile wants."""

    def tick(self) -> tuple[int, float] | None:
        """See the base class."""
        users = PROFILES[PROFILE].users_at(self.get_run_time())
        return None if users is None else (users, 50)


class ConcordUser(FastHttpUser):
    """Asks, reads the answer, and thinks for a moment."""

    abstract = True
    wait_time = between(0.02, 0.06)
    kind = ""

    def ask(self, method: str, path: str, data: bytes, headers: dict[str, str]) -> None:
        """One request, counted under `kind`."""
        with self.client.request(
            method, path, name=self.kind, data=data, headers=headers, catch_response=True
        ) as answer:
            if answer.status_code == 429:
                answer.failure(_REFUSED)
            elif answer.status_code not in (200, 204):
                answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")


class PredictingUser(ConcordUser):
    """Asks about random rows of the size that the model takes."""

    abstract = True
    model: dict[str, Any]

    def on_start(self) -> None:
        """Learn the model's name and what it takes."""
        self.model = self.client.get("/v1/models").json()["models"][0]  # the one in service
        self.values = [round(random.random(), 3) for _ in range(prod(self.model["input_shape"]))]  # noqa: S311

    @property
    def infer_path(self) -> str:
        """Where the model is asked."""
        return f"/v2/models/{self.model['name']}/infer"

    def tensor(self, **changes: object) -> dict[str, Any]:
        """The one input of a request."""
        return {"name": "input", "shape": [1, *self.model["input_shape"]], "datatype": "FP32", **changes}


class JsonUser(PredictingUser):
    """The Open Inference Protocol in JSON."""

    kind = "infer json"

    @task
    def infer(self) -> None:
        """One row."""
        body = json.dumps({"inputs": [self.tensor(data=self.values)]}).encode()
        self.ask("POST", self.infer_path, body, {"Content-Type": "application/json"})


class BinaryUser(PredictingUser):
    """The same with binary data both ways."""

    kind = "infer binary"

    @task
    def infer(self) -> None:
        """One row."""
        data = struct.pack(f"<{len(self.values)}f", *self.values)
        tensor = self.tensor(parameters={"binary_data_size": len(data)})
        text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        self.ask("POST", self.infer_path, text + data, {"Inference-Header-Content-Length": str(len(text))})


class PlainUser(PredictingUser):
    """The plain form."""

    kind = "predict"

    @task
    def predict(self) -> None:
        """One row."""
        self.ask("POST", "/v1/predict", json.dumps({"inputs": self.values}).encode(), {})


class NeighbourUser(ConcordUser):
    """A neighbour that pushes valid updates; all users are one neighbour, as a site has one slot for each."""

    kind = "push"

    @task
    def push(self) -> None:
        """One update."""
        one = next(neighbour())
        self.ask("PUT", one.target, one.body, one.headers)


@cache
def neighbour() -> Iterator[Push]:
    """The updates of the one neighbour."""
    from loadtest.neighbour import pushes  # takes torch

    secret = os.environ.get("LOADTEST_SECRET_FILE")
    names = os.environ["LOADTEST_SENDER"], os.environ["LOADTEST_RECEIVER"]
    return pushes(Path(os.environ["LOADTEST_JOB"]), *names, Path(secret) if secret else None)


@events.init.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Make the first update, for which nobody is to wait; and end once there were as many requests as allowed."""
    if NeighbourUser in environment.user_classes:
        next(neighbour())
    most = PROFILES[PROFILE].requests

    def count(**_: Any) -> None:
        if most is not None and environment.stats.total.num_requests >= most:
            environment.runner.quit()

    environment.events.request.add_listener(count)


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Print what came of it, write it down, and let the exit code say whether the objectives were met."""
    kinds = [user.kind for user in environment.user_classes]
    outcomes = [outcome_of(environment.stats, kind) for kind in sorted(set(kinds))]
    objectives = read_objectives(PROFILE)
    missed = violations(outcomes, objectives)
    text = f"# {PROFILE}\n\n{table(outcomes, objectives)}\n\n" + "\n".join(missed or ["all objectives met"])
    print("\n" + text)
    folder = Path(os.environ.get("LOADTEST_OUT", "out/loadtest"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{PROFILE}.md").write_text(text + "\n", encoding="utf-8")
    environment.process_exit_code = 1 if missed else 0


def outcome_of(stats: Any, kind: str) -> Outcome:
    """What Locust has counted of one kind."""
    entries = [entry for entry in stats.entries.values() if entry.name == kind]
    refused = sum(one.occurrences for one in stats.errors.values() if one.name == kind and str(one.error) == _REFUSED)
    if not entries:
        return Outcome(kind, 0, 0, 0, 0.0, 0.0, 0.0)
    (entry,) = entries
    p50, p99 = (float(entry.get_response_time_percentile(share) or 0.0) for share in (0.5, 0.99))
    return Outcome(kind, entry.num_requests, entry.num_failures - refused, refused, entry.total_rps, p50, p99)
