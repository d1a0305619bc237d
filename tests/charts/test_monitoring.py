"""Monitoring in the chart: every process is read once and by its site's name, and only where that was asked for."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from chart import CHART, Object, Pod, Release, feature, matches, refusal, settings, with_values

PROCESSES = {"site", "trainer", "exchange", "inference", "fleet", "console"}
OWN_KINDS = ("PodMonitor", "ServiceMonitor", "PrometheusRule")

_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}


def _closed(required: list[str], **properties: Any) -> Object:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


_DURATION = {"type": "string", "pattern": "^(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?$"}
_RELABELLING = _closed(
    ["targetLabel"],
    targetLabel={"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
    replacement=_TEXT,
    sourceLabels={"type": "array", "items": {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}},
)
_SELECTOR = _closed(
    ["matchLabels"], matchLabels=_TEXTS, matchExpressions={"type": "array", "items": {"type": "object"}}
)


def _endpoint(port: str) -> Object:
    relabelings = {"type": "array", "items": _RELABELLING}
    return _closed(
        [port, "path", "interval"], path=_TEXT, interval=_DURATION, relabelings=relabelings, **{port: {"const": "http"}}
    )


_RULE = {
    "oneOf": [
        _closed(["record", "expr"], record={"type": "string", "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]*$"}, expr=_TEXT),
        _closed(["alert", "expr"], alert=_TEXT, expr=_TEXT, labels=_TEXTS, annotations=_TEXTS, **{"for": _DURATION}),
    ]
}
SPECS = {
    "PodMonitor": _closed(
        ["selector", "podMetricsEndpoints"],
        selector=_SELECTOR,
        podMetricsEndpoints={"type": "array", "minItems": 1, "items": _endpoint("port")},
    ),
    "ServiceMonitor": _closed(
        ["selector", "endpoints"],
        selector=_SELECTOR,
        endpoints={"type": "array", "minItems": 1, "items": _endpoint("targetPort")},
    ),
    "PrometheusRule": _closed(
        ["groups"],
        groups={
            "type": "array",
            "minItems": 1,
            "items": _closed(["name", "rules"], name=_TEXT, rules={"type": "array", "minItems": 1, "items": _RULE}),
        },
    ),
}
"""As much of the operator's schemas, monitoring.coreos.com/v1, as the chart uses, and nothing besides."""


def _objects(release: Release) -> list[Object]:
    return [one for kind in OWN_KINDS for one in release.of(kind)]


def _processes(release: Release) -> list[Pod]:
    return [pod for pod in release.pods() if pod.component in PROCESSES]


@pytest.mark.parametrize("name", ["monitoring", "monitoring-services"])
def test_the_objects_are_what_the_operator_takes(name: str) -> None:
    objects = _objects(feature(name))
    assert objects
    for one in objects:
        assert one["apiVersion"] == "monitoring.coreos.com/v1"
        jsonschema.Draft202012Validator(SPECS[one["kind"]]).validate(one["spec"])
        assert one["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(("kind", "wrong"), [("PodMonitor", {"podMetricEndpoints": []}), ("PrometheusRule", {})])
def test_an_object_that_is_wrong_is_noticed(kind: str, wrong: Object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SPECS[kind]).validate(wrong)


def test_nothing_is_made_unless_it_is_asked_for() -> None:
    release = feature("default")
    assert _objects(release) == []
    assert not [name for name in release.names("ConfigMap") if "dashboard" in name]
    for pod in release.pods():
        given = pod.owner["spec"].get("template", {"metadata": {}})["metadata"].get("annotations", {})
        assert not [key for key in given if key.startswith("prometheus.io/")]


def test_a_pod_monitor_selects_every_process_and_nothing_else() -> None:
    for release in (
        feature("monitoring"),
        with_values(layout="split", console={"enabled": True}, monitoring={"podMonitor": {"enabled": True}}),
    ):
        (monitor,) = release.of("PodMonitor")
        chosen = {pod.name for pod in release.pods() if matches(monitor["spec"]["selector"], pod.labels)}
        assert chosen == {pod.name for pod in _processes(release)}
        assert all("http" in pod.ports for pod in _processes(release))


@pytest.mark.parametrize("layout", ["combined", "split"])
def test_a_service_monitor_reaches_every_process_once(layout: str) -> None:
    release = with_values(
        layout=layout,
        fleet={"enabled": True},
        console={"enabled": True},
        monitoring={"serviceMonitor": {"enabled": True}},
    )
    (monitor,) = release.of("ServiceMonitor")
    services = [one for one in release.of("Service") if matches(monitor["spec"]["selector"], one["metadata"]["labels"])]
    reached = [
        pod.name
        for service in services
        for pod in _processes(release)
        if matches({"matchLabels": service["spec"]["selector"]}, pod.labels)
    ]
    assert sorted(reached) == sorted(pod.name for pod in _processes(release))


@pytest.mark.parametrize("name", ["monitoring", "monitoring-services"])
def test_series_have_the_job_of_the_rules_and_the_site_of_the_pod(name: str) -> None:
    release = feature(name)
    (monitor,) = release.of("PodMonitor") or release.of("ServiceMonitor")
    (endpoint,) = monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    for pod in _processes(release):
        labels = {
            f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9_]', '_', key)}": v for key, v in pod.labels.items()
        }
        given = {
            rule["targetLabel"]: rule.get("replacement") or "".join(labels.get(key, "") for key in rule["sourceLabels"])
            for rule in endpoint["relabelings"]
        }
        assert given == {"job": "concord", "site": pod.site or "", "component": pod.component}


def test_both_monitors_at_once_are_refused() -> None:
    both = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}
    assert "choose one" in refusal(*settings(monitoring=both))


def test_pods_say_where_their_metrics_are() -> None:
    release = with_values(
        layout="split",
        fleet={"enabled": True},
        console={"enabled": True},
        monitoring={"annotations": {"enabled": True}},
    )
    for pod in release.pods():
        if pod.component in PROCESSES | {"redis"}:
            annotations = pod.owner["spec"]["template"]["metadata"].get("annotations", {})
            given = {key: value for key, value in annotations.items() if key.startswith("prometheus.io/")}
            wanted = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
            assert given == ({} if pod.component == "redis" else wanted), pod.name
            assert pod.component == "redis" or pod.ports["http"] == 8080


@pytest.mark.parametrize("name", ["monitoring", "monitoring-services", "monitoring-annotations"])
def test_prometheus_is_let_in_to_every_process(name: str) -> None:
    release = feature(name)
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    for pod in _processes(release):
        (policy,) = (one for one in release.of("NetworkPolicy") if matches(one["spec"]["podSelector"], pod.labels))
        let_in = [rule for rule in policy["spec"]["ingress"] if prometheus in rule["from"]]
        assert [[port["port"] for port in rule["ports"]] for rule in let_in] == [[8080]], pod.name


def test_the_console_is_closed_to_it_where_nothing_is_read() -> None:
    release = with_values(console={"enabled": True})
    assert release.get("NetworkPolicy", "concord-console")["spec"]["ingress"] == []


def _rules(release: Release) -> dict[str, Object]:
    (one,) = release.of("PrometheusRule")
    return {rule.get("alert") or rule["record"]: rule for group in one["spec"]["groups"] for rule in group["rules"]}


def test_every_threshold_is_somewhere_in_the_rules() -> None:
    thresholds = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["rules"]["thresholds"]
    plain = _rules(with_values(monitoring={"rules": {"enabled": True}}))
    for number, name in enumerate(thresholds):
        wish = 0.0123 + number / 1000
        changed = _rules(with_values(monitoring={"rules": {"enabled": True, "thresholds": {name: wish}}}))
        different = [rule for key, rule in changed.items() if rule != plain[key]]
        assert different, name
        assert all(str(wish) in rule["expr"] for rule in different)


def test_no_mark_is_left_in_the_rules_and_runbooks_are_where_the_values_say() -> None:
    rules = _rules(feature("monitoring"))
    assert "@" not in yaml.safe_dump(rules)
    told = {name: rule["annotations"]["runbook_url"] for name, rule in rules.items() if "alert" in rule}
    assert told == {name: f"https://docs.example.org/runbooks/{name}.html" for name in told}


def test_dashboards_come_as_grafanas_sidecar_looks_for_them() -> None:
    release = feature("monitoring")
    found = {one["metadata"]["name"]: one for one in release.of("ConfigMap") if "dashboard" in one["metadata"]["name"]}
    files = {path.name: path.read_text() for path in (CHART / "dashboards").glob("*.json")}
    assert found.keys() == {f"concord-dashboard-{name.removesuffix('.json')}" for name in files}
    for one in found.values():
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert one["metadata"]["annotations"] == {"grafana_folder": "Federations"}
        ((key, text),) = one["data"].items()
        ours = files[key.removeprefix("concord-")]
        there = "https://docs.example.org/runbooks/${__data.fields.alert}.html"
        assert json.loads(text) == json.loads(ours.replace("docs/runbooks/${__data.fields.alert}.md", there))
        assert "docs/runbooks/" not in text
        assert len(text) < 2**19
