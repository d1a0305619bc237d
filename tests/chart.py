"""Renders the chart with the real helm, once for each set of arguments, and looks through what comes out."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tools.get_helm import find

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "concord"
FEATURES = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
"""What the chart can do, each shown by one file of values."""
NAMESPACE = "federation"

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as its owner would make it: `labels`, `spec`, and the `owner` it comes from."""

    owner: Object
    labels: Mapping[str, str]
    spec: Object

    @property
    def name(self) -> str:
        return f"{self.owner['kind']} {self.owner['metadata']['name']}"

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def site(self) -> str | None:
        return self.labels.get("concord.dev/site")

    @property
    def containers(self) -> list[Object]:
        """All of them, those that start first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {
            port["name"]: port["containerPort"] for container in self.containers for port in container.get("ports", [])
        }


@dataclass(frozen=True)
class Release:
    """Everything one rendering gave, in order; `texts` has the same objects as they were written."""

    objects: list[Object]
    texts: dict[tuple[str, str], str] = field(repr=False)

    def of(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]

    def get(self, kind: str, name: str) -> Object:
        (found,) = (one for one in self.of(kind) if one["metadata"]["name"] == name)
        return found

    def names(self, kind: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.of(kind)}

    def pods(self) -> Iterator[Pod]:
        for one in self.objects:
            if one["kind"] == "Pod":
                yield Pod(one, one["metadata"]["labels"], one["spec"])
            elif one["kind"] in ("StatefulSet", "Deployment", "Job"):
                template = one["spec"]["template"]
                yield Pod(one, template["metadata"]["labels"], template["spec"])
            elif one["kind"] == "CronJob":
                template = one["spec"]["jobTemplate"]["spec"]["template"]
                yield Pod(one, template["metadata"]["labels"], template["spec"])

    @property
    def job(self) -> str:
        (found,) = (one["data"]["job.yaml"] for one in self.of("ConfigMap") if "job.yaml" in one["data"])
        return str(found)

    @property
    def membership(self) -> str:
        (found,) = (one["data"]["topology.json"] for one in self.of("ConfigMap") if "topology.json" in one["data"])
        return str(found)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def feature(name: str) -> Release:
    """The chart with the values of one file in ci/."""
    return render("--values", str(CHART / "ci" / f"{name}-values.yaml"))


def with_values(**values: object) -> Release:
    """The chart with some values laid over its own."""
    return render(*settings(**values))


def settings(**values: object) -> list[str]:
    """Arguments for helm that lay values over the chart's own."""
    return [text for key, value in values.items() for text in ("--set-json", f"{key}={json.dumps(value)}")]


def refusal(*arguments: str) -> str:
    """What helm says against these arguments."""
    answer = helm("template", "concord", str(CHART), "--namespace", NAMESPACE, *arguments)
    assert answer.returncode != 0, "it was not refused"
    return answer.stderr


@functools.cache
def render(*arguments: str, name: str = "concord") -> Release:
    """The chart as `helm template` gives it, hooks and tests included."""
    answer = helm("template", name, str(CHART), "--namespace", NAMESPACE, *arguments)
    assert answer.returncode == 0, answer.stderr
    return read(answer.stdout)


def read(text: str) -> Release:
    """The objects of a text of many YAML documents."""
    objects, texts = [], {}
    for document in text.split("\n---\n"):
        one = yaml.load(document, Loader=yaml.CSafeLoader)
        if one is not None:
            objects.append(one)
            texts[one["kind"], one["metadata"]["name"]] = document
    return Release(objects, texts)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What helm answered."""
    return subprocess.run([find(), *arguments], capture_output=True, text=True, check=False, timeout=60)
