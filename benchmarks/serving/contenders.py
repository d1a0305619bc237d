"""The four servers: how each is installed, started and asked."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import httpx
import psutil

from benchmarks.peers.contenders import CONSTRAINTS, ROOT, install
from benchmarks.serving.servers.digits_and_pictures import SHAPES
from benchmarks.split_site import HOST, free_port

SERVERS = Path(__file__).parent / "servers"
FOLDER = ROOT / "out" / "serving-peers"
KSERVE, BENTOML = "kserve==0.21.0", "bentoml==1.4.40"
FASTAPI = ("fastapi", "uvicorn[standard]", "numpy")
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Contender:
    """`words` are pip's, for an environment of its own; none: ours. `command` has {python}, {bin}, {model}, {port}."""

    name: str
    words: tuple[str, ...]
    command: tuple[str, ...]
    path: str
    v2: bool = False

    def body(self, model: str) -> bytes:
        """One row, the same for all."""
        source = random.Random(0)
        shape = SHAPES[model]
        values = [source.randrange(256) / 255 if model == "mlp" else source.randrange(256) for _ in range(prod(shape))]
        values = [round(value, 3) for value in values]
        if not self.v2:
            return json.dumps({"inputs": [values]}).encode()
        tensor = {"name": "input", "shape": [1, *shape], "datatype": "FP32", "data": values}
        return json.dumps({"inputs": [tensor], "outputs": [{"name": "output"}]}).encode()

    def python(self) -> Path:
        """The interpreter of its environment, made at the first call."""
        if not self.words:
            return Path(sys.executable)
        torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
        return install(FOLDER / self.name.lower().split()[0], *self.words, torch)


CONTENDERS = (
    Contender(
        "Concord", (), ("{python}", "serve_concord.py", "{model}", "{port}"), "/v2/models/{model}/infer", v2=True
    ),
    Contender(
        "KServe",
        (KSERVE,),
        ("{python}", "serve_kserve.py", "--model_name", "{model}", "--http_port", "{port}"),
        "/v2/models/{model}/infer",
        v2=True,
    ),
    Contender("FastAPI", FASTAPI, ("{python}", "serve_fastapi.py", "{model}", "{port}"), "/predict"),
    Contender(
        "BentoML", (BENTOML,), ("{bin}/bentoml", "serve", "serve_bentoml:Served", "--port", "{port}"), "/predict"
    ),
)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers at `url` to POSTs of the file `body`."""

    contender: Contender
    process: psutil.Process
    url: str
    body: Path

    def seconds(self) -> float:
        """Processor time that all its processes have taken so far."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in family)

    def megabytes(self) -> float:
        """Memory of all its processes, a shared page counted once for each that shares it in part (PSS)."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(one.memory_full_info().pss for one in family) / 1e6


@contextmanager
def serving(contender: Contender, model: str) -> Iterator[Running]:
    """One server while the block runs."""
    python, port = contender.python(), free_port()
    names = {"python": str(python), "bin": str(python.parent), "model": model, "port": str(port)}
    words = [word.format_map(names) for word in contender.command]
    body = FOLDER / f"{contender.name}-{model}.json"
    body.write_bytes(contender.body(model))
    log = FOLDER / f"{contender.name}-{model}.log"
    with log.open("w") as output:
        process = subprocess.Popen(words, cwd=SERVERS, env=_environment(model), stdout=output, stderr=output)
        family: list[psutil.Process] = []
        try:
            url = f"http://{HOST}:{port}{contender.path.format(model=model)}"
            _wait(url, body, process, log)
            running = psutil.Process(process.pid)
            family = running.children(recursive=True)
            yield Running(contender, running, url, body)
        finally:
            _end(process, family)


def _environment(model: str) -> Mapping[str, str]:
    quiet = {"BENTOML_DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1", "MODEL": model, "PYTHONUNBUFFERED": "1"}
    paths = [str(SERVERS), str(ROOT / "services")]
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths)}


def _wait(url: str, body: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    headers = {"Content-Type": "application/json"}
    answer = ""
    while time.monotonic() < deadline and process.poll() is None:
        try:
            found = httpx.post(url, content=body.read_bytes(), headers=headers, timeout=5.0)
            answer = f"; it answers {found.status_code}: {found.text[:300]}"
            if found.is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{url} does not serve{answer}; {log} may say why")


def _end(process: subprocess.Popen[bytes], family: list[psutil.Process]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    for one in alive:
        one.kill()
