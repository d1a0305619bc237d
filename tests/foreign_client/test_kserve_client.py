"""KServe's own client and types against a real server; `make test-kserve`, as KServe takes 1.3 GB of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.serving.contenders import CONTENDERS, FOLDER, serving


def test_kserves_client_and_types_take_our_answers() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    ours, kserve = CONTENDERS[0], CONTENDERS[1]
    with serving(ours, "mlp") as running:
        url = running.url.partition("/v2/")[0]
        words = [str(kserve.python()), str(Path(__file__).with_name("speak.py")), url, "mlp"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("spoke\n")
