"""The picture of hospitals: one bar each by either method, one row per finding, equal bytes for equal values."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from concord.figures.hospitals import Comparison, Finding, Hospital, draw_hospitals
from concord.job import load_job
from concord.job.model import Job

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


@pytest.fixture
def job() -> Job:
    return load_job(JOBS / "hospitals.yaml", ())


def test_the_job_of_the_figure_is_eight_hospitals_of_unequal_speed(job: Job) -> None:
    assert job.site_names == tuple(f"N{number}" for number in range(1, 9))
    speeds = [job.simulation.faults(name).speed for name in job.site_names]
    assert (speeds[0], speeds[-1]) == (1.0, 0.3)
    assert len(set(speeds)) == 8
    assert job.simulation.network.loss == 0.2
