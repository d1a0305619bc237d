"""Figures as data: every size of every one is a valid job, and what belongs together is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import Run as RunCommand
from cli import runner
from concord.figures.definitions import FIGURES, POOLED, SIZES, Figure, Panel, find_figure
from concord.figures.drawings import DRAWINGS
from concord.figures.plan import figure_jobs, panel_job

PANELS = [panel for figure in FIGURES.values() for panel in figure.panels]
DEGREES = (4, 2, 2, 2, 3, 2, 3, 2)  # of the released code's random graph


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> RunCommand:
    return runner(capsys)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_every_size_of_every_figure_is_a_valid_job(figure: Figure, size: str) -> None:
    jobs = figure_jobs(figure, size)
    assert len(jobs) == sum(len(panel.cases) for panel in figure.panels)
    for _, _, job in jobs:
        assert (len(job.sites), job.topology_graph().sites) == (8, job.site_names)
    assert figure.seeds[size] >= 1
    assert figure.drawing in DRAWINGS


@pytest.mark.parametrize("panel", PANELS, ids=[panel.name for panel in PANELS])
def test_cases_differ_only_in_the_algorithm(panel: Panel) -> None:
    jobs = [panel_job(panel, "small", case=case) for case in panel.cases]
    assert len({job.algorithm.model_dump_json() for job in jobs}) == len(jobs)
    assert len({job.model_dump_json(exclude={"algorithm"}) for job in jobs}) == 1


@pytest.mark.parametrize("panel", PANELS, ids=[panel.name for panel in PANELS])
def test_what_is_published_belongs_to_a_curve_with_a_colour_of_its_own(panel: Panel) -> None:
    labels = [case.label for case in panel.cases]
    assert len(set(labels)) == len({case.colour for case in panel.cases}) == len(labels)
    assert panel.published.keys() <= {*labels, POOLED}


def test_the_random_graph_has_the_degrees_of_the_released_code() -> None:
    _, random = find_figure("paper").panels
    graph = panel_job(random, "full").topology_graph()
    assert tuple(graph.degree(name) for name in graph.sites) == DEGREES


def test_overrides_lie_under_those_of_the_case() -> None:
    panel = find_figure("1").panels[0]
    job = panel_job(panel, "small", ["algorithm.penalty_scale=3", "algorithm.name=local"], panel.cases[0])
    assert (job.algorithm.name, job.algorithm.penalty_scale) == ("ecl-isvr", 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["3"], "there is no figure '3'; there are 1, 2, paper"),
        (["1", "--size", "ful"], "--size: unknown size 'ful'; did you mean 'full'?"),
        (["1", "--data", "no/such.npz"], "--data: no/such.npz does not exist; give the file or folder"),
        (["1", "--set", "training.round=3"], "unknown key; did you mean 'rounds'?"),
    ],
)
def test_a_mistake_is_told_with_its_remedy(
    arguments: list[str], message: str, run: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("figure", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert not list(tmp_path.iterdir())
