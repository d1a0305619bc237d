"""`concord new`: a folder with a job, a model, data and a test, which runs at once. Must not load torch."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from concord.cli.options import AsJson
from concord.cli.render import console, print_json
from concord.errors import EnvironmentProblem, JobError

FILES = {
    "README.md": "README.md",
    "job.yaml": "job.yaml",
    "task.py": "task.py",
    "test_task.py": "test_task.py",
    ".gitignore": "gitignore",
}
"""Each file of a project, and what it is called among the package's data."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("new")(new)


def new(
    folder: Annotated[
        Path, typer.Argument(metavar="NAME", help="The project's name, or a path to it.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Make a folder with a job, a model with data, and a test: a project to start from, which runs at once."""
    made = make_project(folder)
    if as_json:
        print_json({"folder": str(made), "files": list(FILES)})
        return
    screen = console()
    screen.print(f"{made} holds {', '.join(FILES)}. Next:", soft_wrap=True)
    screen.print(f"  cd {made}\n  concord simulate job.yaml\n  concord up job.yaml", markup=False)


def make_project(folder: Path) -> Path:
    """The folder, whole or not at all; JobError for a name that cannot be a federation's, or one that is taken."""
    name = folder.name
    if not _NAME.fullmatch(name):
        raise JobError(
            f"{name!r} cannot be the name of a project: lower-case letters, digits and - inside, at most 63, such as "
            "my-project"
        )
    if os.path.lexists(folder):
        raise JobError(f"{folder} is there already; choose another name, or remove it first")
    if not folder.parent.is_dir():
        raise JobError(f"{folder.parent} is no folder; make it first, or choose another place")
    try:
        _write(folder, name)
    except OSError as error:
        raise EnvironmentProblem(
            f"{folder} cannot be made: {error.strerror or error}; nothing was left there"
        ) from error
    return folder


def _write(folder: Path, name: str) -> None:
    """Everything into a folder beside it, which gets its name at the end."""
    draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        draft.chmod(0o755)
        source = files("concord") / "template"
        for target, data in FILES.items():
            text = (source / data).read_text(encoding="utf-8")
            (draft / target).write_text(Template(text).safe_substitute(name=name), encoding="utf-8")
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
