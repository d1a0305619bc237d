"""The pods of the chart as containers: its commands, variables, volumes, probes and test, in both layouts."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from chart import NAMESPACE, Object, Pod, Release, with_values
from container_engine import Engine, EngineError
from container_pods import HARDENED, wait_until
from fake_cluster import fake_cluster, write_kubeconfig

SITES = ("n1", "n2", "n3")
USER = 10001
_ASK = "import sys, urllib.request as r; sys.exit(r.urlopen('http://127.0.0.1:{port}{path}', timeout=5).status != 200)"


class Node:
    """Does with a release what a kubelet and the network of a cluster would, in a network of containers."""

    def __init__(self, engine: Engine, image: str, release: Release, folder: Path) -> None:
        self._engine, self._image, self._release, self._folder = engine, image, release, folder
        self._network = engine.create("network", f"concord-{engine.run}")
        self._secrets = {
            one["metadata"]["name"]: {key: base64.b64decode(text) for key, text in one["data"].items()}
            for one in release.of("Secret")
        }
        self._secrets |= self._certificates()

    def run(self, pod: Pod) -> list[str]:
        """Start a pod; the names of its containers, which have a way to say that they are ready in `Node.ready`."""
        prefix = f"concord-{self._engine.run}-{pod.owner['metadata']['name']}"
        aliases = [word for name in self._names(pod) for word in ("--network-alias", name)]
        self._engine.start(
            *("--name", prefix, "--network", self._network, *aliases, *HARDENED, "--memory", "32m"),
            *("--entrypoint", "sleep", self._image, "infinity"),
        )
        started = []
        for container in pod.containers:
            name = f"{prefix}-{container['name']}"
            command = ["--entrypoint", container["command"][0]] if "command" in container else []
            words = [*container.get("command", [])[1:], *container.get("args", [])]
            self._engine.start(
                *("--name", name, "--network", f"container:{prefix}", "--read-only", "--cap-drop", "ALL"),
                *("--security-opt", "no-new-privileges", "--user", f"{USER}:{USER}"),
                *("--memory", container["resources"]["limits"]["memory"].replace("Mi", "m")),
                *self._variables(container, pod),
                *self._mounts(container, pod),
                *(*command, self._image, *words),
            )
            started.append(name)
        return started

    def answers(self, container: Object, name: str, probe: str) -> bool:
        """Whether a probe over HTTP is answered well."""
        ask = container[probe]["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        script = _ASK.format(port=ports[ask["port"]], path=ask["path"])
        try:
            self._engine.call("exec", name, "python", "-c", script)
        except EngineError:
            return False
        return True

    def logs(self, name: str) -> str:
        return self._engine.call("logs", "--tail", "30", name)

    def exit_code(self, name: str) -> int:
        return int(self._engine.call("wait", name, timeout=300))

    def _certificates(self) -> dict[str, dict[str, bytes]]:
        """What the hook makes before an install."""
        (hook,) = (
            pod for pod in self._release.pods() if pod.component == "certificates" and pod.owner["kind"] == "Job"
        )
        (container,) = hook.spec["containers"]
        with fake_cluster(NAMESPACE) as secrets:
            write_kubeconfig(self._folder / "kubeconfig", secrets.url)
            environment = {**os.environ, "KUBECONFIG": str(self._folder / "kubeconfig")}
            command = [sys.executable, "-m", "concord", *container["args"]]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=60)
            return {f"concord-tls-{site}": secrets.content(f"concord-tls-{site}") for site in SITES}

    def _names(self, pod: Pod) -> Iterator[str]:
        """By which a pod is found: those of the Services that select it."""
        for service in self._release.of("Service"):
            selector = service["spec"].get("selector", {})
            if selector and selector.items() <= pod.labels.items():
                name = service["metadata"]["name"]
                yield from (name, f"{name}.{NAMESPACE}", f"{name}.{NAMESPACE}.svc")

    def _variables(self, container: Object, pod: Pod) -> list[str]:
        known: dict[str, str] = {}
        for one in container.get("env", []):
            if "secretKeyRef" in one.get("valueFrom", {}):
                reference = one["valueFrom"]["secretKeyRef"]
                value = self._secrets[reference["name"]][reference["key"]].decode()
            else:
                value = re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], one["value"])
            known[one["name"]] = value
        return [word for pair in known.items() for word in ("--env", "=".join(pair))]

    def _mounts(self, container: Object, pod: Pod) -> list[str]:
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        claims = {claim["metadata"]["name"] for claim in pod.owner.get("spec", {}).get("volumeClaimTemplates", [])}
        words = []
        for mount in container.get("volumeMounts", []):
            name, path = mount["name"], mount["mountPath"]
            if name in claims or "emptyDir" in volumes[name]:
                place = self._folder / pod.owner["metadata"]["name"] / name
                place.mkdir(parents=True, exist_ok=True)
                os.chown(place, 0, USER)  # as fsGroup has it
                place.chmod(0o2770)
                words += ["--volume", f"{place}:{path}"]
            else:
                words += ["--volume", f"{self._laid_out(volumes[name])}:{path}:ro"]
        return words

    def _laid_out(self, volume: Object) -> Path:
        """The folder of a ConfigMap or a Secret."""
        if "configMap" in volume:
            name, mode = volume["configMap"]["name"], 0o644
            content: Mapping[str, bytes] = {
                key: text.encode() for key, text in self._release.get("ConfigMap", name)["data"].items()
            }
        else:
            name, mode = volume["secret"]["secretName"], volume["secret"]["defaultMode"]
            content = self._secrets[name]
        folder = self._folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in content.items():
            path = folder / key
            path.write_bytes(value)
            path.chmod(mode)
            os.chown(path, 0, USER)
        return folder


@pytest.mark.parametrize("layout", ["combined", "split"])
def test_pods_start_are_ready_and_pass_the_test_of_the_chart(
    engine: Engine, image: str, layout: str, tmp_path: Path, report: list[str]
) -> None:
    release = with_values(sites=list(SITES), layout=layout, **{"job.training.pace": 0.1})
    node = Node(engine, image, release, tmp_path)
    pods = [pod for pod in release.pods() if pod.site is not None]
    running = {name: container for pod in pods for name, container in zip(node.run(pod), pod.containers, strict=True)}
    asked = {name: container for name, container in running.items() if "httpGet" in container.get("startupProbe", {})}
    assert len(asked) == len(SITES) * (1 if layout == "combined" else 3)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        for name, container in asked.items():
            wait_until(
                lambda name=name, container=container, probe=probe: node.answers(container, name, probe),  # type: ignore[misc]
                f"{probe} of {name}",
                lambda name=name: node.logs(name),  # type: ignore[misc]
            )
    (test,) = (pod for pod in release.pods() if pod.component == "test")
    (name,) = node.run(test)
    assert node.exit_code(name) == 0, node.logs(name)
    report.append(f"chart, {layout}: {len(running)} containers ready; {node.logs(name).splitlines()[-1]}")
