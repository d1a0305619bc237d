"""The client: wrk, in C, so that it takes little of what the servers need. Fetched once if the system lacks it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.contenders import ROOT

TOOLS = ROOT / "out" / "tools" / "wrk"
SCRIPT = Path(__file__).with_name("wrk.lua")
_PACKAGES = ("wrk", "libluajit-5.1-2", "libluajit-5.1-common")


@dataclass(frozen=True, slots=True)
class Course:
    """What one run came to; times in milliseconds. `errors` are answers that were none, or not 2xx."""

    per_second: float
    p50: float
    p99: float
    errors: int


def find_wrk() -> tuple[str, dict[str, str]]:
    """The program and the environment it needs: the system's, or else Debian's, unpacked into out/tools."""
    known = shutil.which("wrk")
    if known:
        return known, dict(os.environ)
    program = TOOLS / "usr" / "bin" / "wrk"
    if not program.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", *_PACKAGES], cwd=TOOLS, check=True, capture_output=True)  # noqa: S607
            for package in TOOLS.glob("*.deb"):
                subprocess.run(["dpkg", "-x", package.name, "."], cwd=TOOLS, check=True)  # noqa: S607
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"wrk is needed and cannot be fetched ({error}): apt-get install wrk") from error
    libraries = next(TOOLS.glob("usr/lib/*-linux-gnu*"))
    return str(program), {**os.environ, "LD_LIBRARY_PATH": str(libraries)}


def run(url: str, body: Path, clients: int, seconds: int) -> Course:
    """Ask for so long, each client again as soon as it has its answer."""
    program, environment = find_wrk()
    words = [program, "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT), url]
    done = subprocess.run(
        words, env={**environment, "BODY": str(body)}, check=True, capture_output=True, text=True, timeout=seconds + 60
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Course(**found)
