"""The graph that the chart computes is the one that Concord computes, for every kind and size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from chart import CHART, feature, helm, with_values
from concord.consensus.graph import build_topology
from concord.errors import TopologyError
from concord.job import parse_job
from concord.job.membership import Membership

KINDS = ("ring", "double-ring", "multiplex-ring", "star", "chain", "grid", "complete", "exponential")
SIZES = range(1, 17)

# One chart with nothing in it but the graphs, so that all of them come from one call of helm.
PROBE = """
{{- range $name, $case := .Values.cases }}
{{ $name }}: {{ include "concord.topology" (dict "names" $case.names "topology" $case.topology) | trim }}
{{- end }}
"""


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chart = tmp_path_factory.mktemp("probe")
    (chart / "templates").mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: probe\nversion: 0.1.0\n")
    (chart / "templates" / "graphs.yaml").write_text(PROBE)
    shutil.copy(CHART / "templates" / "_topology.tpl", chart / "templates")
    return chart


def cases() -> Iterator[tuple[str, list[str], object]]:
    """A name, the sites and the topology of each case."""
    for size in SIZES:
        # Not in the order of their numbers: n1, n10, n11, n2, ...
        names = sorted(f"n{number}" for number in range(1, size + 1))
        for kind in KINDS:
            yield f"{kind}-{size}", names, kind
        for columns in range(1, size + 1):
            yield f"grid-{size}-{columns}", names, {"kind": "grid", "columns": columns}


def test_all_kinds_and_sizes_are_the_same_here_and_there(probe: Path) -> None:
    expected = {}
    for name, names, topology in cases():
        options = {"kind": topology} if isinstance(topology, str) else dict(topology)
        try:
            graph = build_topology(options.pop("kind"), names, **options)
        except TopologyError:
            continue
        expected[name] = (names, topology, {site: {*graph.neighbours(site)} for site in names})
    values = {name: {"names": names, "topology": topology} for name, (names, topology, _) in expected.items()}
    (probe / "values.yaml").write_text(json.dumps({"cases": values}))
    answer = helm("template", "probe", str(probe))
    assert answer.returncode == 0, answer.stderr
    drawn = yaml.safe_load(answer.stdout)
    assert len(drawn) > 150
    assert {name: {site: {*others} for site, others in table.items()} for name, table in drawn.items()} == {
        name: table for name, (_, _, table) in expected.items()
    }


def test_what_is_refused_there_is_refused_here() -> None:
    for size, topology in ((5, "grid"), (6, {"kind": "grid", "columns": 4})):
        sites = [f"n{number}" for number in range(1, size + 1)]
        answer = helm(
            "template", "concord", str(CHART), "--set-json", f"sites={json.dumps(sites)}", "--set-json",
            f"topology={json.dumps(topology)}",
        )  # fmt: skip
        assert "grid" in answer.stderr
        assert answer.returncode != 0


@pytest.mark.parametrize(
    "name", ["default", "split", "star", "grid", "edges", "neighbours", "peers-two-sites", "sites"]
)
def test_job_and_membership_say_the_same_graph(name: str) -> None:
    release = feature(name)
    job, membership = parse_job(release.job), Membership.from_json(release.membership)
    assert membership.graph().edges == job.topology_graph().edges
    assert tuple(membership.sites) == job.site_names == tuple(sorted(job.site_names))
    assert all(edge.epoch == 1 for edge in membership.edges)
    assert membership.version == 1


def test_edges_of_ones_own_count_in_either_direction() -> None:
    edges = Membership.from_json(feature("edges").membership).graph().edges
    assert edges == {
        *{
            ("n1", "n2"),
            ("n2", "n3"),
            ("n3", "n4"),
            ("n4", "n5"),
            ("n5", "n6"),
            ("n6", "n7"),
            ("n7", "n8"),
            ("n1", "n5"),
        }
    }
    assert Membership.from_json(feature("neighbours").membership).graph().edges == {
        ("north", "south"),
        ("north", "west"),
    }


def test_a_single_site_is_a_federation() -> None:
    release = with_values(sites=["alone"])
    assert Membership.from_json(release.membership).graph().sites == ("alone",)
