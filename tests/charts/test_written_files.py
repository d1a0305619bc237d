"""What is made from the chart is as the chart is now: the table of values, the manifests without Helm, the overlays."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator

import pytest
import yaml
from pydantic import BaseModel

from chart import CHART, ROOT, Object, read, render
from concord.job.model import Job, SiteSection
from tools.chart_docs import explained, with_table
from tools.render_manifests import FOLDER, RULES, manifests, rules

SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_the_table_of_values_is_fresh() -> None:
    readme = (CHART / "README.md").read_text()
    assert with_table(readme, (CHART / "values.yaml").read_text()) == readme, "run make chart-docs"


def test_the_manifests_are_fresh() -> None:
    for name, text in manifests().items():
        assert (FOLDER / name).read_text() == text, "run make rendered"


def test_the_rules_are_fresh() -> None:
    assert RULES.read_text() == rules(), "run make rendered"


def test_the_manifests_are_whole_and_know_nothing_of_helm() -> None:
    text = "\n---\n".join((FOLDER / name).read_text() for name in ("certificates.yaml", "concord.yaml"))
    assert "helm.sh" not in text
    release = read(text)
    assert not release.of("Secret")
    assert {one["metadata"]["namespace"] for one in release.objects} == {"concord"}
    assert len(release.of("StatefulSet")) == 8
    assert release.names("Job") == {"concord-certificates"}


def test_the_defaults_ask_for_the_image_that_is_built_here() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    image = yaml.safe_load((CHART / "values.yaml").read_text())["image"]
    assert chart["appVersion"] == project["version"]
    assert (image["repository"], image["tag"], image["digest"]) == ("concord", "", "")


def test_every_value_is_explained() -> None:
    text = (CHART / "values.yaml").read_text()
    told = {value.path for value in explained(text)}
    for path in _paths(yaml.safe_load(text)):
        parts = path.split(".")
        assert any(".".join(parts[:depth]) in told for depth in range(1, len(parts) + 1)), path


def test_every_value_is_in_the_schema_and_nothing_else_is_let_in() -> None:
    for path in _paths(yaml.safe_load((CHART / "values.yaml").read_text())):
        if path.split(".")[0] not in ("sites", "job"):
            assert _described(SCHEMA, path.split(".")), path
    for one in _objects(SCHEMA):
        assert (
            "additionalProperties" in one
            or "As Kubernetes has it" in one["description"]
            or one["description"]
            in (
                "Options of the task.",
                "Values of a chart that has this one as a part; not used.",
            )
        )


def test_the_schema_knows_the_sections_of_a_job_as_the_job_does() -> None:
    job = SCHEMA["properties"]["job"]["anyOf"][1]["properties"]
    assert set(job) == set(Job.model_fields) - {"sites", "topology", "simulation"}
    for name, section in job.items():
        model = Job.model_fields[name].annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            (form,) = (one for one in section.get("anyOf", [section]) if one.get("type") == "object")
            assert set(form["properties"]) == set(model.model_fields), name
    known = set(SCHEMA["definitions"]["site"])
    assert set(SiteSection.model_fields) - {"url"} <= known


@pytest.mark.parametrize("overlay", ["kind", "minikube", "production"])
def test_overlays_install_into_a_namespace_of_the_restricted_level(overlay: str) -> None:
    folder = ROOT / "k8s" / "overlays" / overlay
    release = render("--values", str(folder / "values.yaml"))
    assert release.of("StatefulSet")
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {*listed, "kustomization.yaml", "values.yaml"} == {path.name for path in folder.iterdir()}
    objects = [one for name in listed for one in yaml.safe_load_all((folder / name).read_text())]
    (namespace,) = (one for one in objects if one["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    (quota,) = (one["spec"]["hard"] for one in objects if one["kind"] == "ResourceQuota")
    memory = sum(
        _memory(container["resources"]["limits"]["memory"]) for pod in release.pods() for container in pod.containers
    )
    assert memory < _memory(quota["limits.memory"])


def _memory(text: str) -> int:
    return int(text[:-2]) * {"Mi": 1, "Gi": 1024}[text[-2:]]


def _paths(values: object, above: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _paths(value, f"{above}.{key}".lstrip("."))
    else:
        yield above


def _described(schema: Object, path: list[str]) -> bool:
    while "$ref" in schema:
        schema = _found(schema["$ref"])
    if not path:
        return bool(schema.get("description"))
    inner = schema.get("properties", {}).get(path[0])
    if inner is not None:
        return _described(inner, path[1:])
    return isinstance(schema.get("additionalProperties"), dict) or "As Kubernetes has it" in schema.get(
        "description", ""
    )


def _found(reference: str) -> Object:
    place = SCHEMA
    for key in reference.removeprefix("#/").split("/"):
        place = place[key]
    return place


def _objects(schema: object) -> Iterator[Object]:
    """Every schema of an object in the schema."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from _objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _objects(value)
