"""When a seed counts as survived, and the table of results in the docs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from chaos.faults import KINDS

POINT = 0.01
BEGIN, END = "<!-- chaos: begin -->\n", "<!-- chaos: end -->\n"
Record = dict[str, Any]


def undisturbed_accuracy(records: Sequence[Record]) -> float:
    """That of the job with all its sites and no fault."""
    return fmean(record["accuracy"] for record in records if record["seed"] < 0 and not record.get("gone"))


def survived(record: Record, undisturbed: float) -> bool:
    """Everyone finished within a point of the undisturbed run, nothing is lost or wrong, nothing corrupt came in."""
    accepted = any(name.startswith("accepted") for name in record["attacks"])
    return (
        record["accuracy"] is not None
        and record["accuracy"] >= undisturbed - POINT
        and not (record["unfinished"] or record["problems"] or accepted)
    )


def table(records: Sequence[Record]) -> str:
    """The results by kind of fault and in all, as Markdown."""
    undisturbed = undisturbed_accuracy(records)
    seeds = [record for record in records if record["seed"] >= 0]
    by_kind: defaultdict[str, list[tuple[Record, Record]]] = defaultdict(list)
    for record in seeds:
        for fault in record["faults"]:
            by_kind[fault["plan"]["kind"]].append((record, fault))
    rows = [
        "| fault | what is done | times | in seeds that survived | seconds to recover: median, most |",
        "|---|---|--:|--:|--:|",
    ]
    for name, kind in KINDS.items():
        struck = by_kind[name]
        took = [fault["recovered"] for _, fault in struck if fault["recovered"] is not None]
        well = sum(survived(record, undisturbed) for record, _ in struck)
        times = f"{median(took):.1f}, {max(took):.1f}" if took else "-"
        rows.append(f"| {name} | {kind.text} | {len(struck)} | {well} | {times} |")
    return "\n".join([*rows, "", *_totals(seeds, undisturbed), *_gone(records, undisturbed)]) + "\n"


def _totals(seeds: Sequence[Record], undisturbed: float) -> list[str]:
    attacks = [(name, count) for record in seeds for name, count in record["attacks"].items()]
    refused = sum(count for name, count in attacks if name.startswith("refused"))
    accepted = sum(count for name, count in attacks if name.startswith("accepted"))
    well = sum(survived(record, undisturbed) for record in seeds)
    accuracies = [record["accuracy"] for record in seeds if record["accuracy"] is not None]
    return [
        f"- {well} of {len(seeds)} seeds survived, with {sum(len(record['faults']) for record in seeds)} faults.",
        f"- Accuracy: {100 * undisturbed:.1f} % undisturbed; with faults {100 * fmean(accuracies):.1f} % in the mean, "
        f"{100 * min(accuracies):.1f} % at worst.",
        f"- Lost, old or wrong state found by the auditor: {sum(len(record['problems']) for record in seeds)}.",
        f"- Corrupt updates: {refused} refused, {accepted} accepted.",
        f"- Load of the machine (two processors): {median([record['load'] for record in seeds]):.0f}, median.",
    ]


def _gone(records: Sequence[Record], undisturbed: float) -> list[str]:
    """What of a shortfall is the data that a site took with it."""
    never = {record["gone"][0]: record["accuracy"] for record in records if record["seed"] < 0 and record.get("gone")}
    left = [
        record for record in records if record["seed"] >= 0 and record.get("gone") and record["accuracy"] is not None
    ]
    if not never or not left:
        return []
    less = [100 * (record["accuracy"] - never[record["gone"][0]]) for record in left]
    without = ", ".join(f"{100 * accuracy:.1f} % without {name}" for name, accuracy in sorted(never.items()))
    return [
        f"- Undisturbed, but a site was never there: {without}. The {len(left)} seeds with a site gone for good ended "
        f"{fmean(less):+.1f} points from that in the mean, {min(less):+.1f} at worst; "
        f"{sum(one >= -100 * POINT for one in less)} of them within a point of it, and "
        f"{sum(survived(record, undisturbed) for record in left)} survived, held against all the data."
    ]


def write_table(page: Path, records: Sequence[Record]) -> None:
    """Put the table between the marks of a page."""
    text = page.read_text()
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(text[:before] + table(records) + text[after:])
