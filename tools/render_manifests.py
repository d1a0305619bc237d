"""What the chart gives, for people without Helm: the manifests in k8s/rendered, with the values for kind and no trace
of Helm, and the rules in k8s/prometheus, for a Prometheus without the operator.

`python -m tools.render_manifests` writes them; a test says when that was forgotten.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.get_helm import find

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "k8s" / "rendered"
RULES = ROOT / "k8s" / "prometheus" / "concord-rules.yaml"
NAMESPACE = "concord"
# Without Helm nothing keeps what was drawn at random, and what Helm runs at certain times runs once.
VALUES = {"redis.existingSecret": "concord-redis", "redis.key": "password", "tests.enabled": "false"}
_HEAD = "# Made by `make rendered` from helm/concord; README.md beside it says how to apply it.\n"
_HEAD_OF_RULES = "# Made by `make rendered` from helm/concord/files/rules; docs/monitoring.md says how to load it.\n"
_OF_HELM = ("helm.sh/", "app.kubernetes.io/managed-by")


class _Dumper(yaml.SafeDumper):
    """Texts of more than one line keep their lines."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def manifests() -> dict[str, str]:
    """The text of each file by its name."""
    files: dict[str, list[dict[str, Any]]] = {"certificates.yaml": [], "concord.yaml": []}
    for one in _rendered():
        component = one["metadata"]["labels"].get("app.kubernetes.io/component")
        files["certificates.yaml" if component == "certificates" else "concord.yaml"].append(_bare(one))
    return {name: _HEAD + yaml.safe_dump_all(objects, sort_keys=False, width=120) for name, objects in files.items()}


def rules() -> str:
    """The alerts and what they are computed from, with the chart's thresholds, as a file of rules."""
    objects = _template("--set", "monitoring.rules.enabled=true", "--show-only", "templates/monitoring.yaml")
    return _HEAD_OF_RULES + yaml.dump(objects[0]["spec"], Dumper=_Dumper, sort_keys=False, width=120)


def _template(*arguments: str) -> list[dict[str, Any]]:
    """The objects of the chart."""
    command = [find(), "template", "concord", ROOT / "helm" / "concord", "--namespace", NAMESPACE, *arguments]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own words
    return [one for one in yaml.safe_load_all(text) if one]


def _rendered() -> Iterator[dict[str, Any]]:
    values = [text for key, value in VALUES.items() for text in ("--set", f"{key}={value}")]
    objects = _template("--values", str(ROOT / "k8s" / "overlays" / "kind" / "values.yaml"), *values)
    yield from sorted(objects, key=lambda one: (one["kind"] != "ServiceAccount", one["kind"], one["metadata"]["name"]))


def _bare(one: dict[str, Any]) -> dict[str, Any]:
    """The object in its namespace, without what only Helm reads."""
    one["metadata"] = _metadata(one["metadata"]) | {"namespace": NAMESPACE}
    job_template = one["spec"].get("jobTemplate") if one["kind"] == "CronJob" else None
    if job_template:
        job_template["metadata"] = _metadata(job_template["metadata"])
    return one


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(metadata)
    for part in ("labels", "annotations"):
        left = {key: value for key, value in kept.pop(part, {}).items() if not key.startswith(_OF_HELM)}
        if left:
            kept[part] = left
    return kept


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in manifests().items():
        (FOLDER / name).write_text(text)
    RULES.parent.mkdir(parents=True, exist_ok=True)
    RULES.write_text(rules())
