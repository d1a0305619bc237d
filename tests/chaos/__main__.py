"""Plays seeds and appends one line of JSON for each to a file; seeds that are in it already are not played again."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaos.play import JOB, play
from chaos.report import survived, undisturbed_accuracy, write_table
from chaos.schedule import schedule
from concord.job import parse_job

UNDISTURBED = 3
"""How often the job runs undisturbed, as what seeds are held against: seeds -1 to -3. The four before them
are undisturbed too, each without another site, and say what a site that is gone for good costs whatever we do."""
SITES = 4


def records(path: Path) -> list[dict[str, Any]]:
    """What a file of results holds."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=100, help="seeds 0 to this many (default 100)")
    arguments.add_argument("--results", type=Path, default=Path("out/chaos.jsonl"))
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the job")
    arguments.add_argument("--docs", type=Path, help="the page whose table is made anew")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this ends its sites too
    job = parse_job(JOB, options.set)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for seed in _missing(options.seeds, records(options.results)):
        plan = schedule(seed, job.site_names) if seed >= 0 else []
        without = job.site_names[-seed - UNDISTURBED - 1] if seed < -UNDISTURBED else None
        outcome = play(seed, plan, job, without=without)
        with options.results.open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
        print(
            f"seed {seed}: accuracy {outcome.accuracy}, {outcome.seconds:.0f} s, {len(outcome.faults)} faults, "
            f"{outcome.accepted} corrupt updates accepted, wrong: {outcome.problems + outcome.unfinished or 'nothing'}",
            flush=True,
        )
    done = records(options.results)
    undisturbed = undisturbed_accuracy(done)
    failed = [record["seed"] for record in done if record["seed"] >= 0 and not survived(record, undisturbed)]
    print(f"undisturbed {undisturbed:.4f}; did not survive: {failed or 'none'}")
    if options.docs is not None:
        write_table(options.docs, done)
    raise SystemExit(1 if failed else 0)


def _missing(count: int, done: list[dict[str, Any]]) -> Iterator[int]:
    played = {record["seed"] for record in done}
    return (seed for seed in (*range(-UNDISTURBED - SITES, 0), *range(count)) if seed not in played)


if __name__ == "__main__":
    main()
