"""`python -m loadtest PROFILE`: runs Locust against `--target`, or against a site that it starts here and ends."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from loadtest.profiles import PROFILES, USERS

HERE = Path(__file__).parent
JOB = """\
name: loadtest
task: digits
sites: [A, B]
topology: ring
split: {kind: iid}
training: {rounds: null, pace: 0.25, local_steps: 16, learning_rate: 0.05}
"""
_MARGIN = 60.0
"""Seconds beyond its profile that a run may take to start and to end."""


def main() -> None:
    """Run, and end with 0 if all objectives were met, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    parser.add_argument("profile", choices=PROFILES, nargs="?", default="smoke")
    parser.add_argument("--users", choices=USERS, help="mixed, or inference with --target and without --sender")
    parser.add_argument("--target", help="the site's base URL; without it one is started on loopback")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait until the target has a model")
    parser.add_argument("--out", default="out/loadtest", help="folder for the results")
    parser.add_argument("--job", help="job file of the target, for neighbours")
    parser.add_argument("--sender", help="name of the site that neighbours push as")
    parser.add_argument("--receiver", help="name of the target's site")
    parser.add_argument("--secret-file", help="the federation's secret")
    given = parser.parse_args()
    names = {"LOADTEST_JOB": given.job, "LOADTEST_SENDER": given.sender, "LOADTEST_RECEIVER": given.receiver}
    names |= {"LOADTEST_SECRET_FILE": given.secret_file}
    neighbours = {name: value for name, value in names.items() if value}
    users = given.users or ("inference" if given.target and not given.sender else "mixed")
    if given.target:
        wait_for_model(given.target, given.wait)
        raise SystemExit(run(given.profile, users, given.target, given.out, neighbours))
    with site() as (url, more):
        raise SystemExit(run(given.profile, users, url, given.out, more))


def run(profile: str, users: str, target: str, out: str, neighbours: Mapping[str, str]) -> int:
    """Locust in a process of its own, because it takes over sockets; its exit code."""
    words = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), *USERS[users]]
    words += ["--headless", "--host", target, "--only-summary", "--stop-timeout", "5", "--loglevel", "WARNING"]
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"LOADTEST_PROFILE": profile, "LOADTEST_OUT": out, "PYTHONPATH": os.pathsep.join(paths), **neighbours}
    done = subprocess.run(words, env={**os.environ, **settings}, timeout=PROFILES[profile].seconds + _MARGIN)  # noqa: S603
    return done.returncode


@contextmanager
def site() -> Iterator[tuple[str, dict[str, str]]]:
    """A whole site on loopback with a model to answer with, and what its neighbour, which is not there, has to know."""
    from benchmarks.split_site import PATIENCE, bench, free_port

    with tempfile.TemporaryDirectory() as folder, bench(Path(folder), JOB) as made:
        place = made.place("A")
        made.start("site", place, {"B": f"http://127.0.0.1:{free_port()}"}, 0)
        wait_for_model(place.url, PATIENCE)
        yield (
            place.url,
            {
                "LOADTEST_JOB": str(made.folder / "job.yaml"),
                "LOADTEST_SENDER": "B",
                "LOADTEST_RECEIVER": "A",
                "LOADTEST_SECRET_FILE": str(made.folder / "secret"),
            },
        )


def wait_for_model(url: str, patience: float) -> None:
    """Return once the site at `url` has a model to answer with, or after so many seconds; Locust says what lacks."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/v2/health/ready").is_success:
                return
        time.sleep(0.2)


if __name__ == "__main__":
    main()
