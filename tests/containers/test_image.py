"""What the image is: small, closed, labelled, with all that processes need and nothing to build with."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from container_engine import Engine, EngineError
from container_pods import HARDENED

ROOT = Path(__file__).parents[2]
MOST_BYTES = 1_200_000_000
"""Of the image on the disk, with torch for processors only."""

COMPILED = """
import sys
from os.path import exists
from concord.apps import exchange, inference, trainer, warm
from sklearn.datasets import load_digits
load_digits()
specs = {name: getattr(module, "__spec__", None) for name, module in list(sys.modules.items())}
cached = {name: spec.cached for name, spec in specs.items() if spec and spec.cached}
print(len(cached), *sorted(name for name, path in cached.items() if not exists(path)))
"""

pytestmark = pytest.mark.timeout(2400)  # the first test waits for the image to be built


def test_it_is_small_enough(engine: Engine, image: str, report: list[str]) -> None:
    size = engine.inspect("image", image)["Size"]
    report.append(f"image: {size / 1e6:.0f} MB")
    assert size <= MOST_BYTES


def test_it_says_what_it_is_and_who_it_runs_as(engine: Engine, image: str) -> None:
    config = engine.inspect("image", image)["Config"]
    assert config["User"] == "10001"  # a number, or a cluster could not tell that it is not root
    assert config["Entrypoint"] == ["concord"]
    assert config["StopSignal"] == "SIGTERM"
    assert not config.get("Healthcheck")
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared
    assert labels["version"] == declared[1] == engine.once(*HARDENED, image, "--version")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert labels["revision"] == head.stdout.strip()
    assert {labels["title"], labels["licenses"]} == {"Concord", "Apache-2.0"}
    assert labels["description"]


def test_only_tmp_can_be_written(engine: Engine, image: str) -> None:
    def write(path: str) -> str:
        return engine.once(*HARDENED, "--entrypoint", "sh", image, "-c", f"id -u && echo x > {path}/x && cat {path}/x")

    assert write("/tmp").split() == ["10001", "x"]
    for closed in ("/", "/opt/concord", "/var/lib/concord/state"):
        with pytest.raises(EngineError, match="Read-only file system"):
            write(closed)


def test_a_user_whom_the_image_does_not_know_can_run_it(engine: Engine, image: str) -> None:
    assert "trainer" in engine.once(*HARDENED, "--user", "123456:0", image, "--help")


def test_there_is_nothing_to_build_with(engine: Engine, image: str) -> None:
    script = "for tool in cc gcc g++ make pip pip3; do command -v $tool; done; python -c 'import pip' 2>&1; true"
    said = engine.once(*HARDENED, "--entrypoint", "sh", image, "-c", script)
    assert said.splitlines()[-1] == "ModuleNotFoundError: No module named 'pip'"
    assert not [line for line in said.splitlines() if line.startswith("/")]


def test_a_process_has_nothing_left_to_compile_when_it_starts(engine: Engine, image: str) -> None:
    count, *missing = engine.once(*HARDENED, "--entrypoint", "python", image, "-c", COMPILED).split()
    assert int(count) > 1000
    assert missing == []


def test_what_the_commands_need_is_there(engine: Engine, image: str) -> None:
    script = (
        "import cryptography.x509, kubernetes.client, numpy, pooch, sklearn.datasets, torch; print(torch.ones(2).sum())"
    )
    assert engine.once(*HARDENED, "--entrypoint", "python", image, "-c", script) == "tensor(2.)"
    with pytest.raises(EngineError, match="is not a folder"):
        engine.once(*HARDENED, image, "redis", "--dir", "/nowhere")
