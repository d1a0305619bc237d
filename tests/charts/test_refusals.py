"""What the chart refuses, and that it says why."""

from __future__ import annotations

import pytest

from chart import CHART, helm, refusal, settings


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"colour": "blue"}, "additional properties 'colour' not allowed"),
        ({"siteDefaults.colour": "blue"}, "additional properties 'colour' not allowed"),
        ({"sites.n1.colour": "blue"}, "additional properties 'colour' not allowed"),
        ({"job.training.colour": "blue"}, "additional properties 'colour' not allowed"),
        ({"sites.n1.threads": "two"}, "/sites/n1/threads"),
        ({"siteDefaults.connections.most": 0}, "/siteDefaults/connections/most"),
        ({"sites.n1.connections.perAddress": "many"}, "/sites/n1/connections/perAddress"),
        ({"job.privacy.noise_multiplier": 0}, "/job/privacy/noise_multiplier"),
        ({"layout": "scattered"}, "'combined', 'split'"),
        ({"topology": "rng"}, "'double-ring'"),
        ({"topology": "random-regular"}, "list its edges instead"),
        ({"topology": {"kind": "edges"}}, "kind edges needs edges"),
        ({"topology": {"kind": "ring", "columns": 2}}, "ring takes no columns"),
        ({"topology": {"kind": "ring", "edges": [["n1", "n2"]]}}, "ring takes no edges"),
        ({"topology": {"kind": "edges", "edges": [["n1", "n99"]]}}, "names an unknown site 'n99'"),
        ({"topology": {"kind": "edges", "edges": [["n1", "n1"]]}}, "n1 cannot be its own neighbour"),
        ({"topology": {"kind": "edges", "edges": [["n1", "n2"]]}}, "not connected; from n1 there is no way to n3"),
        (
            {"topology": {"kind": "edges", "edges": {"n1": ["n2"], "n2": []}}},
            "n1 lists n2 as a neighbour, but n2 does not list n1",
        ),
        ({"sites.n_1": {}}, "'n_1' is no name for a site"),
        ({"sites": ["-a"]}, "'-a' is no name for a site"),
        ({"sites": ["a", "a"]}, "a is listed twice"),
        ({"sites": ["b", "B"]}, "B and b are one name in lower case"),
        ({"sites": ["a", "a-exchange"]}, "a and a-exchange would share an object's name"),
        ({"sites": ["b"], "peers": {"B": {"reach": "outbound"}}}, "B and b are one name in lower case"),
        ({"peers": {"n2": {"reach": "outbound"}}}, "n2 is also one of this release's sites"),
        ({"sites": ["a"], "peers": {"b": None}}, "/peers/b"),
        ({"sites": ["a" * 50]}, "has 58 characters; 52 are possible"),
        ({"sites": ["a" * 40], "layout": "split"}, "has 56 characters; 52 are possible"),
        (
            {"sites.n1.reach": "outbound", "sites.n2.reach": "outbound"},
            "n1 and n2 are neighbours and both are outbound",
        ),
        ({"job": "name: digits\ntask: digits\ncolour: blue"}, "unknown key 'colour'"),
        ({"job": "name: digits\ntask: digits\nsites: {a: {colour: blue}}"}, "sites.a: unknown key 'colour'"),
        ({"job": "name: Digits\ntask: digits"}, "name should be lower-case letters"),
        ({"job": "name: digits"}, "task is missing"),
        ({"job": "- 1"}, "not a YAML mapping"),
        ({"job": "name: digits\ntask: digits\ntopology: {kind: random-regular, degree: 3}"}, "list its edges instead"),
        ({"insecure": True}, "it needs tls.mode: disabled"),
        ({"insecure": True, "tls.mode": "disabled", "secret.existingSecret": "a"}, "choose one"),
        ({"tls.mode": "disabled", "secret.enabled": False}, "without any proof"),
        ({"tls.mode": "disabled", "sites": ["a"], "peers": {"b": {"reach": "outbound"}}}, "the same secret"),
        ({"externalRedis.enabled": True}, "externalRedis.existingSecret"),
        ({"fleet.enabled": True, "sites": ["a"], "peers": {"b": {"reach": "outbound"}}}, "one cluster only"),
        ({"image.digest": "sha256:12"}, "/image/digest"),
    ],
)
def test_it_is_refused_with_its_reason(values: dict[str, object], reason: str) -> None:
    assert reason in refusal(*settings(**values))


def test_removing_every_site_is_refused() -> None:
    assert "there is none" in refusal(*(text for n in range(1, 9) for text in ("--set", f"sites.n{n}=null")))


def test_a_name_that_yaml_made_a_truth_value_of_is_noticed(tmp_path: object) -> None:
    assert "put it in quotation marks" in refusal("--set-json", 'sites={"true": {}}')


def test_an_older_cluster_is_refused() -> None:
    answer = helm("template", "concord", str(CHART), "--kube-version", "1.28.0")
    assert answer.returncode != 0
    assert "1.29" in answer.stderr
