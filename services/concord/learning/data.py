"""Finds the files of a data set, or downloads them once, and reads their formats. Nothing is ever unpickled.

Must not know which task reads what. numpy and pooch come with the extra `datasets` and are needed only to
read `.npz` and to download.
"""

from __future__ import annotations

import gzip
import logging
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from concord.errors import TaskError

DIRECTORY_VARIABLE = "CONCORD_DATA"
"""Environment variable: the directory with one folder per data set, searched first and downloaded to."""
DOWNLOAD_TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""

T = TypeVar("T")

_NEEDS_EXTRA = "pip install 'concord-edge[datasets]'"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file by its local name, where it can be downloaded, and the SHA-256 (hex) it then must have."""

    name: str
    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class DataSource:
    """The files of one data set, and where the operating system's own packages put them, if they have it."""

    name: str
    files: tuple[RemoteFile, ...]
    system: Path | None = None


def locate(source: DataSource, path: str | None = None, environment: Mapping[str, str] | None = None) -> Path:
    """The directory that holds all files of `source`.

    `path` if given, and then nothing else; otherwise the first that is complete of $CONCORD_DATA/<name>, the
    system's place and the user's cache; otherwise they are downloaded to the first of these that is ours to
    write. `environment` stands for the process's. TaskError names what was tried and what would help.
    """
    if path is not None:
        missing = _missing(source, Path(path))
        if missing:
            raise TaskError(f"task.options.path: {path} lacks {', '.join(missing)}, needed for {source.name}")
        return Path(path)
    home = (os.environ if environment is None else environment).get(DIRECTORY_VARIABLE)
    store = Path(home) / source.name if home else _cache_directory() / source.name
    tried = [place for place in (store, source.system) if place is not None]
    for place in tried:
        if not _missing(source, place):
            return place
    _download(source, store, tried)
    return store


def read_idx(path: Path) -> Tensor:
    """The uint8 array of an idx file (the format of MNIST), gzipped; TaskError if it is not one."""
    try:
        content = bytearray(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error) as exc:
        raise TaskError(f"{path} cannot be read: {exc}") from exc
    dimensions = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    size = len(content) - start
    if not dimensions or content[:3] != b"\0\0\x08" or torch.Size(shape).numel() != size or not size:
        raise TaskError(f"{path} is not an idx file of bytes, or not a whole one")
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(shape)


def read_bytes(path: Path) -> Tensor:
    """The bytes (n,) of a file; TaskError if it cannot be read."""
    try:
        return _as_tensor(path.read_bytes())
    except OSError as exc:
        raise TaskError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def read_archive(path: Path, members: Sequence[str]) -> dict[str, Tensor]:
    """The bytes (n,) of files in a gzipped tar archive, by name without folder; nothing is extracted."""
    try:
        with tarfile.open(path) as archive:
            return {Path(member).name: _as_tensor(_member(archive, member)) for member in members}
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as exc:
        raise TaskError(f"{path} cannot be read: {exc}") from exc


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Named arrays of an .npz file; TaskError if one is missing or not numeric, or numpy is not installed."""
    return _read_npz(path, names, "numbers", _numbers)


def read_texts(path: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Named one-dimensional arrays of text of an .npz file; TaskError as for `read_arrays`."""
    return _read_npz(path, names, "texts", _texts)


def _read_npz(path: Path, names: Sequence[str], kind: str, convert: Callable[[Any], T]) -> dict[str, T]:
    try:
        import numpy as np
    except ModuleNotFoundError as exc:
        raise TaskError(f"{path}: reading .npz needs numpy: {_NEEDS_EXTRA}") from exc
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: convert(arrays[name]) for name in names}
    except KeyError as exc:
        raise TaskError(f"{path} lacks the array {exc}; it must have {', '.join(names)}") from exc
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as exc:
        raise TaskError(f"{path} cannot be read as .npz of {kind}: {exc}") from exc


def _numbers(array: Any) -> Tensor:
    return torch.from_numpy(array)


def _texts(array: Any) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind != "U":
        raise TypeError(f"{array.dtype} of shape {array.shape} where a list of texts should be")
    return tuple(str(text) for text in array)


def _missing(source: DataSource, directory: Path) -> list[str]:
    return [file.name for file in source.files if not (directory / file.name).is_file()]


def _cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "concord"


def _download(source: DataSource, store: Path, tried: Sequence[Path]) -> None:
    places = " and ".join(str(place) for place in tried)
    remedy = f"give the folder as task.options.path or set {DIRECTORY_VARIABLE}"
    try:
        import pooch
    except ModuleNotFoundError as exc:
        raise TaskError(
            f"{source.name} is not in {places}, and downloading it needs pooch: {_NEEDS_EXTRA}; or {remedy}"
        ) from exc
    pooch.get_logger().setLevel(logging.WARNING)
    for file in source.files:
        try:
            pooch.retrieve(
                file.url,
                known_hash=f"sha256:{file.sha256}",
                fname=file.name,
                path=store,
                downloader=pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT),
            )
        except (OSError, ValueError) as exc:
            answer = getattr(exc, "response", None)
            if answer is not None:  # pooch leaves the connection of a refused request open
                answer.close()
            raise TaskError(
                f"{source.name} is not in {places}, and {file.url} could not be downloaded to {store} ({exc}); {remedy}"
            ) from exc


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is not a file")
    return file.read()


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
