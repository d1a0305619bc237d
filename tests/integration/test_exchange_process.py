"""The exchange as a process of its own, over a real Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from exchange_sites import free_port

SCRIPT = """
import sys
from concord.apps.exchange import run
from concord.job import Job
from concord.settings import Settings
url, name, port = sys.argv[1:]
job = Job.model_validate({"name": name, "task": "digits", "sites": 2})
run(job, Settings(site="N1", redis_url=url, host="127.0.0.1", port=int(port), insecure=True))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_told_to_stop(redis_url: str, federation: str, number: signal.Signals) -> None:
    port = free_port()
    arguments = [sys.executable, "-c", SCRIPT, redis_url, federation, str(port)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert answer(f"http://127.0.0.1:{port}/healthz").status_code == 200
        assert answer(f"http://127.0.0.1:{port}/readyz").status_code == 503
        process.send_signal(number)
        _, errors = process.communicate(timeout=10.0)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "Traceback" not in errors


def answer(url: str, timeout: float = 30.0) -> httpx.Response:
    """The answer of a server that may still be starting."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return httpx.get(url, trust_env=False)
        except httpx.ConnectError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
