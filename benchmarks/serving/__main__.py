"""`make serving-peers`: one model behind Concord, KServe's Python server, plain FastAPI and BentoML, in turn."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

from benchmarks.serving.contenders import CONTENDERS, FOLDER, Running, serving
from benchmarks.serving.load import Course, run

CLIENTS = (1, 8, 32, 128)
MODELS = ("mlp", "cnn")
OURS = CONTENDERS[0].name
OUT = FOLDER.parent / "serving-peers.json"
_WARM_UP = 1


@dataclass(slots=True)
class Cell:
    """All runs of one server with one number of clients."""

    model: str
    server: str
    clients: int
    courses: list[Course] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    """Milliseconds of a processor for each request: others on the machine change this little."""

    def median(self, name: str) -> float:
        """The median of one number over the runs."""
        return statistics.median(float(getattr(one, name)) for one in self.courses)


@dataclass(slots=True)
class Results:
    """Everything that was measured."""

    cells: dict[tuple[str, str, int], Cell] = field(default_factory=dict)
    megabytes: dict[tuple[str, str], float] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)

    def cell(self, model: str, server: str, clients: int) -> Cell:
        """The cell, made if it is not there."""
        return self.cells.setdefault((model, server, clients), Cell(model, server, clients))


def main() -> None:
    """Install, serve, ask in turn, and tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="runs of each, in turn")
    parser.add_argument("--seconds", type=int, default=2, help="length of a run")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--servers", nargs="*", choices=[one.name for one in CONTENDERS], help="only these")
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    contenders = [one for one in CONTENDERS if not given.servers or one.name in given.servers]
    for one in contenders:
        one.python()  # installed before anything is measured

    results = Results()
    for model in given.models:
        with ExitStack() as stack:
            servers = [stack.enter_context(serving(one, model)) for one in contenders]
            measure(results, model, servers, given.repetitions, given.seconds)
    text = tell(results, given.models, [one.name for one in contenders])
    print(text)
    record = {
        "machine": {"processors": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "settings": {"repetitions": given.repetitions, "seconds": given.seconds},
        "load": results.loads,
        "cells": [asdict(cell) for cell in results.cells.values()],
        "megabytes": {" ".join(key): value for key, value in results.megabytes.items()},
    }
    OUT.write_text(json.dumps(record, indent=2) + "\n")
    OUT.with_suffix(".md").write_text(text + "\n")


def measure(results: Results, model: str, servers: Sequence[Running], repetitions: int, seconds: int) -> None:
    """All servers with all numbers of clients, one after the other, again and again in turn."""
    for server in servers:
        run(server.url, server.body, 8, _WARM_UP)
    for _ in range(repetitions):
        for clients in CLIENTS:
            for server in servers:
                results.loads.append(os.getloadavg()[0])
                before = server.seconds()
                course = run(server.url, server.body, clients, seconds)
                cell = results.cell(model, server.contender.name, clients)
                cell.courses.append(course)
                cell.processor.append(1000 * (server.seconds() - before) / max(1.0, course.per_second * seconds))
                time.sleep(0.1)  # connections end
    for server in servers:
        results.megabytes[model, server.contender.name] = server.megabytes()


def tell(results: Results, models: Sequence[str], servers: Sequence[str]) -> str:
    """Tables in Markdown: numbers, and ratios to KServe."""
    lines: list[str] = []
    for model in models:
        lines += [
            "",
            f"**{model}**",
            "",
            "| server | clients | p50, ms | p99, ms | per second | processor, ms | errors | memory, MB |",
        ]
        lines.append("|---|---|---|---|---|---|---|---|")
        for clients in CLIENTS:
            for server in servers:
                cell, memory = results.cell(model, server, clients), results.megabytes[model, server]
                errors = sum(one.errors for one in cell.courses)
                numbers = f"{cell.median('p50'):.2f} | {cell.median('p99'):.2f} | {cell.median('per_second'):.0f}"
                spent = statistics.median(cell.processor)
                lines.append(f"| {server} | {clients} | {numbers} | {spent:.2f} | {errors} | {memory:.0f} |")
    lines += ["", *ratios(results, models, servers)]
    low, high = min(results.loads), max(results.loads)
    lines += ["", f"Load average {low:.1f} to {high:.1f}, of which one or two are these servers and their client."]
    return "\n".join(lines)


def ratios(results: Results, models: Sequence[str], servers: Sequence[str]) -> list[str]:
    """Requests per second of Concord over those of the others: medians of the ratios of runs that were neighbours."""
    lines = ["| Concord's requests per second over those of | " + " | ".join(f"{n} clients" for n in CLIENTS) + " |"]
    lines.append("|---|" + "---|" * len(CLIENTS))
    others = [server for server in servers if server != OURS] if OURS in servers else []
    for model in models:
        for server in others:
            found = (_ratio(results.cell(model, OURS, n), results.cell(model, server, n)) for n in CLIENTS)
            lines.append(f"| {server}, {model} | " + " | ".join(f"{one:.2f}" for one in found) + " |")
    return lines


def _ratio(ours: Cell, theirs: Cell) -> float:
    # On a machine that is not quiet a run may end before its first answer.
    pairs = zip(ours.courses, theirs.courses, strict=True)
    return statistics.median(one.per_second / max(other.per_second, 0.5) for one, other in pairs)


if __name__ == "__main__":
    main()
