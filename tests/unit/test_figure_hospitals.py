"""The picture of hospitals: one bar each by either method, one row per finding, equal bytes for equal values."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from concord.errors import JobError
from concord.figures.hospital_results import compare
from concord.figures.hospitals import Comparison, Finding, Hospital, draw_hospitals
from concord.job import load_job
from concord.job.model import Job
from concord.learning.partition import ClassCounts
from concord.simulate.experiment import Run
from concord.simulate.network import Traffic
from concord.simulate.report import Point, Reference, SeedRun

JOBS = Path(__file__).parents[2] / "services" / "concord" / "figures" / "jobs"
SHOWN = Comparison(
    hospitals=[
        Hospital("N1", 90, ("Effusion", "Pleural_Thickening", "Mass", "Hernia"), new=0.612, conventional=0.487),
        Hospital("N2", 19, (), new=0.634, conventional=0.555),
    ],
    findings=[Finding("Effusion", 67, 0.71, 0.66, 0.72), Finding("Pleural_Thickening", 9, 0.5, 0.4, 0.45)],
    pooled=0.655,
    title="Two hospitals",
)


def texts(path: Path) -> list[str]:
    """What is written in a picture: matplotlib leaves the words beside the outlines of their letters."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def test_every_hospital_and_finding_is_named_with_its_numbers(tmp_path: Path) -> None:
    draw_hospitals([tmp_path / "a.svg"], SHOWN)
    said = texts(tmp_path / "a.svg")
    for text in (
        "N1, 90 images", "Effusion, Pleural Thickening, Mass", "N2, 19 images", "0.612", "0.487", "0.634", "0.555",
        "all data in one place 0.655", "Effusion (67)", "Pleural Thickening (9)", "edge-consensus learning",
        "gossip averaging", "Two hospitals",
    ):  # fmt: skip
        assert text in said
    assert said.index("Effusion (67)") < said.index("Pleural Thickening (9)")


def test_equal_values_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    for name, shown in (("a", SHOWN), ("b", SHOWN), ("c", replace(SHOWN, pooled=0.7))):
        draw_hospitals([tmp_path / f"{name}.png", tmp_path / f"{name}.svg"], shown)
    for form in ("png", "svg"):
        one, same, other = ((tmp_path / f"{name}.{form}").read_bytes() for name in "abc")
        assert one == same != other


def a_point(algorithm: str, *seeds: tuple[float, float]) -> Point:
    """Of two sites that end with these AUCs, all of them about the one finding of two that counts."""
    runs = []
    for number, values in enumerate(seeds):
        metrics = {
            site: {"auc": value, "auc_Mass": value + 0.1, "auc_Hernia": 0.5}
            for site, value in zip(("N1", "N2"), values, strict=True)
        }
        reference = Reference(((0.0, 0.5), (1.0, 0.7)), {"auc": 0.7, "auc_Mass": 0.8, "auc_Hernia": 0.6})
        runs.append(SeedRun(number, Run((), (), Traffic(), metrics), reference))
    return Point({}, algorithm, runs)


def test_bars_are_of_the_first_seed_and_dots_of_all() -> None:
    new, conventional = a_point("ecl-isvr", (0.6, 0.62), (0.7, 0.72)), a_point("gossip", (0.5, 0.52), (0.5, 0.52))
    held = [ClassCounts("N1", (3, 5), 9, 2), ClassCounts("N2", (1, 0), 4, 3)]
    shown = compare(new, conventional, held, ("Mass", "Hernia"))
    assert shown.hospitals == [
        Hospital("N1", 9, ["Hernia", "Mass"], 0.6, 0.5),
        Hospital("N2", 4, ["Mass"], 0.62, 0.52),
    ]
    mass, hernia = shown.findings
    assert (mass.name, mass.images, mass.new, mass.pooled) == ("Mass", 4, pytest.approx(0.76), 0.8)
    assert (hernia.images, hernia.conventional, shown.pooled) == (5, 0.5, 0.7)


def test_the_picture_needs_pooled_training_to_compare_with() -> None:
    point = Point({}, "gossip", [replace(one, reference=None) for one in a_point("gossip", (0.5, 0.6)).runs])
    with pytest.raises(JobError, match="needs the reference"):
        compare(point, point, [], ())


@pytest.fixture
def job() -> Job:
    return load_job(JOBS / "hospitals.yaml", ())


def test_the_job_of_the_figure_is_eight_hospitals_of_unequal_speed(job: Job) -> None:
    assert job.site_names == tuple(f"N{number}" for number in range(1, 9))
    speeds = [job.simulation.faults(name).speed for name in job.site_names]
    assert (speeds[0], speeds[-1]) == (1.0, 0.3)
    assert len(set(speeds)) == 8
    assert job.simulation.network.loss == 0.2
