"""What a console is told: where its sites are, and which run to hold this one against."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concord.cli.console import read_reference
from concord.console.gathering import pace
from concord.console.places import Place, parse_sites, places
from concord.console.recording import Recording, read_recording
from concord.errors import JobError


def test_sites_and_where_they_predict() -> None:
    sites = parse_sites(["N1=http://a:1/, N2=https://b", "N3=http://[::1]:3"], "--sites")
    found = places(sites, {"N2": "http://c:2"})
    assert found == (
        Place("N1", "http://a:1", "http://a:1"),
        Place("N2", "https://b", "http://c:2"),
        Place("N3", "http://[::1]:3", "http://[::1]:3"),
    )


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("N1", "--sites has 'N1'; it should be NAME=URL"),
        ("N1=http://a,N1=http://b", "names 'N1' twice"),
        ("N1=ftp://a", "it should be like http://"),
        ("N1=http://a:port", "it should be like http://"),
        ("N1=http://", "it should be like http://"),
    ],
)
def test_what_is_no_list_of_sites_is_explained(given: str, wrong: str) -> None:
    with pytest.raises(JobError, match=wrong):
        places(parse_sites([given], "--sites"))


def test_a_site_that_predicts_must_be_one_of_the_sites() -> None:
    with pytest.raises(JobError, match="'N9', which is not one of --sites: N1"):
        places({"N1": "http://a"}, {"N9": "http://b"})


def test_a_recording_is_read_as_it_was_written() -> None:
    run = Recording("gossip", "gossip", "accuracy", {"N1": [(0.5, 1, 0.25), (1.0, 2, 0.5)]}, [(0, 0.1), (2, 0.9)])
    assert read_recording(run.to_json(), "run.json") == Recording(
        "gossip", "gossip", "accuracy", {"N1": [(0.5, 1, 0.25), (1.0, 2, 0.5)]}, [(0, 0.1), (2, 0.9)]
    )


def test_a_report_of_the_demo_gives_ends() -> None:
    report = {"results": {"gossip": {"accuracy_mean": 0.85}, "global": {"accuracy": 0.98}}, "predictions": []}
    run = read_recording(json.dumps(report), "report.json")
    assert (run.mean, run.pooled, run.ends_only) == (0.85, [(0, 0.98)], True)


def test_results_of_a_simulation_give_ends_by_site() -> None:
    seed = {"sites": {"N1": {"metric": 0.7}, "N2": {"metric": 0.8}}, "reference": {"final": 0.9}}
    results = {"points": [{}, {"algorithm": "d2", "seeds": [seed]}]}
    run = read_recording(json.dumps(results), "results.json", 1)
    assert run.sites == {"N1": [(0.0, 0, 0.7)], "N2": [(0.0, 0, 0.8)]}
    assert (run.name, run.pooled) == ("d2", [(0, 0.9)])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "concord-run/1"}', '{"points": []}', '{"results": {}}',
     '{"format": "concord-run/1", "name": "x", "sites": {"N1": [[1, 2]]}}',
     '{"format": "concord-run/1", "name": "x", "sites": {"N1": [[1, 2, NaN]]}}'],
)  # fmt: skip
def test_what_is_no_reference_is_explained(text: str) -> None:
    with pytest.raises(JobError, match=r"run\.json"):
        read_recording(text, "run.json")


def test_the_file_of_a_reference_may_name_a_point(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="should be the number of a point"):
        read_reference("results.json#last")
    with pytest.raises(JobError, match="cannot be read"):
        read_reference(str(tmp_path / "nowhere.json"))


def test_a_fleet_that_nobody_looks_at_is_asked_seldom() -> None:
    assert pace(8, watched=True) < pace(100, watched=True) < pace(8, watched=False)
