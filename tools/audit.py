"""Known vulnerabilities of the packages in constraints.txt, by pip-audit, which asks an advisory service elsewhere.

`python -m tools.audit` ends with 0 if none is known, 1 if there are some, 3 if the service cannot be asked, of all
packages or of a few: then nothing is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
FOUND, CANNOT_ASK = 1, 3


def main(arguments: list[str]) -> int:
    """Ask, with further arguments for pip-audit, and tell."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS)]
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    done = subprocess.run([*command, *options, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    return tell(done.stdout, done.stderr)


def tell(output: str, errors: str) -> int:
    """Say what pip-audit found, from what it wrote; the exit status."""
    try:
        dependencies = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        said = errors.strip().splitlines() or ["nothing was said"]
        print(f"the advisory service could not be asked, so nothing is known: {said[-1][:300]}", file=sys.stderr)
        return CANNOT_ASK
    found = [(package, problem) for package in dependencies for problem in package.get("vulns", [])]
    for package, problem in found:
        remedy = f"mended in {', '.join(problem['fix_versions'])}" if problem["fix_versions"] else "not mended yet"
        print(f"{package['name']} {package['version']}: {problem['id']}, {remedy}")
    skipped = [package for package in dependencies if "skip_reason" in package]
    print(f"{len(dependencies) - len(skipped)} packages looked at, {len(found)} known vulnerabilities")
    if skipped:
        print(f"{len(skipped)} not looked at, the first because: {skipped[0]['skip_reason']}", file=sys.stderr)
    return FOUND if found else CANNOT_ASK if skipped else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
