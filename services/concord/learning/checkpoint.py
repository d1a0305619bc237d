"""A site's memory on disk: the last few checkpoints, each written whole or not at all, and its incarnation.

Must not know what the tensors mean, nor when to save.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from concord.errors import CheckpointError, SealError
from concord.sealed import seal, unseal

_NAME = re.compile(r"checkpoint-\d{20}\.sealed")
_TEMPORARY = ".tmp"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was saved; `skipped` says of each newer file that could not be used which it is and why."""

    number: int
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    path: Path
    skipped: tuple[str, ...]


class CheckpointStore:
    """Checkpoints in one directory, made if missing; the newest `keep` (>= 1) stay. One process at a time."""

    def __init__(self, directory: Path, keep: int = 3) -> None:
        self._directory = directory
        self._keep = keep
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for torn in directory.glob(f"*{_TEMPORARY}"):  # left by a process killed while it wrote
                torn.unlink(missing_ok=True)
        except OSError as exc:
            raise CheckpointError(f"{directory} cannot hold checkpoints: {exc.strerror or exc}") from exc

    def save(self, number: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
        """Write one checkpoint and drop the oldest beyond `keep`; `number` (>= 0) orders them.

        CheckpointError if it cannot be written: it names the file and the newest that is still there, and no
        part of the new one is left behind.
        """
        path = self._directory / f"checkpoint-{number:020}.sealed"
        try:
            write_atomically(path, seal(tensors, metadata))
        except OSError as exc:
            raise CheckpointError(f"{path} was not written ({exc.strerror or exc}); {self._kept()}") from exc
        for old in self._files()[self._keep :]:
            old.unlink(missing_ok=True)
        return path

    def load_newest(self, before: int | None = None) -> Checkpoint | None:
        """The newest checkpoint that is whole, of those numbered below `before` if there are any; None if none was
        ever saved.

        CheckpointError if there are files but none can be used; it says why of each.
        """
        skipped: list[str] = []
        files = self._files()
        older = [path for path in files if before is not None and _number(path) < before]
        for path in older or files:
            try:
                tensors, metadata = unseal(path.read_bytes())
            except (OSError, SealError) as exc:
                skipped.append(f"{path}: {exc}")
                continue
            return Checkpoint(_number(path), tensors, metadata, path, tuple(skipped))
        if skipped:
            raise CheckpointError(f"no usable checkpoint; {'; '.join(skipped)}")
        return None

    def next_incarnation(self, floor: int = 0) -> int:
        """Count one more life of this site: a number above `floor` and all given before, kept on disk."""
        path = self._directory / "incarnation"
        incarnation = max(_read_count(path), floor) + 1
        try:
            write_atomically(path, f"{incarnation}\n".encode())
        except OSError as exc:
            raise CheckpointError(f"{path} was not written ({exc.strerror or exc})") from exc
        return incarnation

    def _files(self) -> list[Path]:
        """All checkpoint files, newest first."""
        return sorted((path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)), reverse=True)

    def _kept(self) -> str:
        files = self._files() if self._directory.is_dir() else []
        return f"{files[0].name} is kept" if files else "there is no earlier checkpoint"


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))


def _read_count(path: Path) -> int:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as exc:
        raise CheckpointError(
            f"{path} does not hold a number ({exc}); delete it, and neighbours will say where to go on"
        ) from exc


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` in one step, on disk when this returns; OSError leaves the old file and no other."""
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """A rename survives a power cut only once the directory itself is on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
