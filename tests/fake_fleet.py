"""A fleet of made-up sites behind one server, as many as a test wants: each answers under its own path."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI, Response

from concord.apps.serve import Server, bind, in_thread
from concord.console.places import Place, places

PIXELS = 64


@dataclass(slots=True)
class FakeFleet:
    """Sites in a graph. Every question about a status finds `rounds_a_second` more rounds done per second.

    Sites in `silent` answer 503. `asked` holds the predictions asked for.
    """

    edges: Sequence[tuple[int, int]]
    count: int
    rounds: int = 300
    rounds_a_second: float = 4.0
    url: str = ""
    began: float = field(default_factory=time.monotonic)
    silent: set[str] = field(default_factory=set)
    lives: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, object]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """N1, N2, ..."""
        return [f"N{i + 1}" for i in range(self.count)]

    @property
    def places(self) -> tuple[Place, ...]:
        """For a console."""
        return places({name: f"{self.url}/{name}" for name in self.names})

    def status(self, name: str) -> dict[str, object]:
        """What a site says now: its accuracy rises, each at its own pace."""
        index = self.names.index(name)
        done = (time.monotonic() - self.began) * self.rounds_a_second * (0.85 + 0.3 * ((index * 7) % 10) / 10)
        round = min(self.rounds, int(done))
        speed = 40 + 60 * ((index * 3) % 7) / 7
        accuracy = 0.12 + 0.86 * (1 - math.exp(-done / speed))
        neighbours = [f"N{b + 1}" for a, b in self.edges if a == index] + [
            f"N{a + 1}" for a, b in self.edges if b == index
        ]
        return {
            "site": name,
            "federation": "hospitals",
            "task": "digits",
            "algorithm": "ecl-isvr",
            "metric": "accuracy",
            "rounds": self.rounds,
            "classes": {str(k): 140 if k in (index % 10, (index * 3 + 1) % 10) else 0 for k in range(10)},
            "parameters": 9610,
            "steps_per_second": 260.0,
            "reported_at": time.time(),
            "progress": {
                "phase": "finished" if round >= self.rounds else "training",
                "incarnation": self.lives.get(name, 1),
                "round": round,
                "step": round * 16,
                "samples": round * 512,
                "loss": 2.3 * math.exp(-done / 50),
                "metrics": {"accuracy": accuracy},
                "bad_steps": 0,
                "rollbacks": 0,
                "version": 1 + round // 10,
                "edges": {other: self._edge(other, round) for other in neighbours},
            },
            "exchange": {
                "mailbox": "ok",
                "unproven": 0,
                "edges": {other: {"refused": {"stale": self.refused.get(name, 0)}} for other in neighbours[:1]},
            },
        }

    def _edge(self, other: str, round: int) -> dict[str, object]:
        age = 45.0 if other in self.silent else 0.3
        return {
            "epoch": 1, "penalty": 0.1, "sent": round, "received": 0 if other in self.silent else round,
            "neighbour_round": round, "staleness_rounds": 1, "staleness_seconds": age, "consensus_distance": 0.004,
        }  # fmt: skip

    def app(self) -> FastAPI:
        """The routes of all sites."""
        app = FastAPI()

        @app.get("/{name}/v1/status")
        def status(name: str) -> Response:
            if name in self.silent:
                return Response("{}", 503)
            return Response(json.dumps(self.status(name)), media_type="application/json")

        @app.get("/{name}/v1/models")
        def models(name: str) -> dict[str, object]:
            model = {"name": "digits", "version": 12, "round": 120, "input_shape": [PIXELS]}
            return {"models": [model]}

        @app.post("/{name}/v1/predict")
        def predict(name: str, body: dict[str, object]) -> dict[str, object]:
            self.asked.append((name, body["inputs"]))
            shares = [0.01] * 10
            shares[7] = 0.91
            return {
                "predictions": [{"label": "7", "class": 7, "probability": 0.91, "probabilities": shares}],
                "model": {"name": "digits", "version": 12, "round": 120},
            }

        return app


@contextmanager
def fake_fleet(count: int, edges: Sequence[tuple[int, int]] | None = None, **options: float) -> Iterator[FakeFleet]:
    """A running fake fleet; a ring unless the edges are given."""
    ring = [(i, (i + 1) % count) for i in range(count)]
    fleet = FakeFleet(edges or ring, count, **options)  # type: ignore[arg-type]
    with in_thread(Server(fleet.app(), bind("127.0.0.1", 0))) as url:
        fleet.url = url
        yield fleet
