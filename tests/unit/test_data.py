"""Data on disk and on a real HTTP server: found, downloaded once, checked, and never unpickled."""

import gzip
import hashlib
import io
import pickle
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from concord.errors import TaskError
from concord.learning.data import DataSource, RemoteFile, locate, read_archive, read_arrays, read_idx
from concord.learning.tasks import cifar10, digits, fashion_mnist

CONTENT = b"seven plus five"


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


class _Handler(SimpleHTTPRequestHandler):
    requests: list[str]

    def __init__(self, requests: list[str], *arguments: object, **keywords: object) -> None:
        self.requests = requests
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]

    def log_message(self, format: str, *arguments: object) -> None:
        self.requests.append(self.path)


@dataclass
class FileServer:
    url: str
    requests: list[str]

    def source(self, digest: str = hashlib.sha256(CONTENT).hexdigest(), name: str = "data.bin") -> DataSource:
        return DataSource("sums", (RemoteFile(name, f"{self.url}/{name}", digest),))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "data.bin").write_bytes(CONTENT)
    requests: list[str] = []
    handler = partial(_Handler, requests, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield FileServer(f"http://127.0.0.1:{http.server_port}", requests)
        http.shutdown()
        thread.join()


def test_a_missing_file_is_downloaded_once(server: FileServer, tmp_path: Path) -> None:
    environment = {"CONCORD_DATA": str(tmp_path / "data")}
    for _ in range(2):
        directory = locate(server.source(), environment=environment)
        assert directory == tmp_path / "data" / "sums"
        assert (directory / "data.bin").read_bytes() == CONTENT
    assert server.requests == ["/data.bin"]


def test_a_download_with_another_hash_is_refused_and_not_kept(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"data\.bin could not be downloaded") as caught:
        locate(server.source(digest="0" * 64), environment={"CONCORD_DATA": str(tmp_path / "data")})
    assert "hash" in str(caught.value)
    assert list((tmp_path / "data" / "sums").iterdir()) == []


def test_a_failed_download_names_path_address_and_remedy(server: FileServer, tmp_path: Path) -> None:
    store = tmp_path / "data" / "sums"
    with pytest.raises(TaskError) as caught:
        locate(server.source(name="gone.bin"), environment={"CONCORD_DATA": str(tmp_path / "data")})
    message = str(caught.value)
    for part in (
        f"sums is not in {store}",
        f"{server.url}/gone.bin",
        "404",
        "task.options.path",
        "CONCORD_DATA",
    ):
        assert part in message


def test_without_pooch_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    source = DataSource("sums", (RemoteFile("data.bin", "http://127.0.0.1:1/data.bin", "0" * 64),))
    with pytest.raises(TaskError, match=r"pip install 'concord-edge\[datasets\]'"):
        locate(source, environment={"CONCORD_DATA": str(tmp_path)})


def test_without_numpy_or_scikit_learn_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(TaskError, match=r"needs numpy: pip install 'concord-edge\[datasets\]'"):
        read_arrays(tmp_path / "a.npz", ("x",))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits.load_pool.cache_clear()
    with pytest.raises(TaskError, match=r"pip install 'concord-edge\[digits\]'"):
        digits.load_pool()


def test_a_given_path_is_used_and_nothing_else(tmp_path: Path) -> None:
    source = DataSource("sums", (RemoteFile("data.bin", "http://127.0.0.1:1/data.bin", "0" * 64),))
    with pytest.raises(TaskError, match=r"task.options.path: .* lacks data.bin, needed for sums"):
        locate(source, path=str(tmp_path))
    (tmp_path / "data.bin").write_bytes(CONTENT)
    assert locate(source, path=str(tmp_path)) == tmp_path


def test_the_system_s_place_comes_after_the_user_s(tmp_path: Path) -> None:
    file = RemoteFile("data.bin", "http://127.0.0.1:1/data.bin", "0" * 64)
    source = DataSource("sums", (file,), system=tmp_path / "system")
    for place in ("system", "data/sums"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "data.bin").write_bytes(CONTENT)
    environment = {"CONCORD_DATA": str(tmp_path / "data")}
    assert locate(source, environment=environment) == tmp_path / "data" / "sums"
    (tmp_path / "data" / "sums" / "data.bin").unlink()
    assert locate(source, environment=environment) == tmp_path / "system"


def test_an_idx_file_is_read(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a.gz").write_bytes(idx(array))
    assert torch.equal(read_idx(tmp_path / "a.gz"), torch.from_numpy(array))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b""),
        gzip.compress(b"\0\0\x08"),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcd"),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x03abcd"),
        gzip.compress(b"\0\0\x0d\x01\0\0\0\x04abcd"),
        gzip.compress(b"\0\0\x08\xff" + b"\xff" * 40),
        idx(np.arange(24, dtype=np.uint8))[:-12],
    ],
    ids=["empty", "no gzip", "of nothing", "cut head", "too few", "too many", "other numbers", "dimensions", "cut"],
)
def test_anything_but_an_idx_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(TaskError, match=r"a\.gz"):
        read_idx(tmp_path / "a.gz")


def write_fashion(directory: Path, labels: int = 6) -> None:
    for part in ("train", "t10k"):
        images = np.arange(6 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(6, 28, 28)
        (directory / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (directory / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(labels, dtype=np.uint8)))


def test_fashion_mnist_is_read_from_a_path(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    pool = fashion_mnist.load_pool(str(tmp_path))
    assert pool.train.inputs.shape == (6, 1, 28, 28)
    assert pool.train.inputs.dtype == torch.uint8
    assert pool.test.targets.tolist() == [0, 1, 2, 3, 4, 5]
    assert pool.test.inputs.flatten()[300] == 300 % 256


def test_fashion_mnist_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path, labels=5)
    with pytest.raises(TaskError, match="do not belong together"):
        fashion_mnist.load_pool(str(tmp_path))


def cifar_records(count: int, seed: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A binary batch, and the same as pictures (n, 32, 32, 3) and labels."""
    generator = np.random.default_rng(seed)
    pictures = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, count, dtype=np.uint8)
    rows = [
        bytes([label]) + picture.transpose(2, 0, 1).tobytes() for picture, label in zip(pictures, labels, strict=True)
    ]
    return b"".join(rows), pictures, labels


def write_cifar(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """Five batches and a test batch; the pictures and labels of the test batch."""
    directory.mkdir(exist_ok=True)
    for number in range(1, 6):
        (directory / f"data_batch_{number}.bin").write_bytes(cifar_records(3, number)[0])
    content, pictures, labels = cifar_records(4, 0)
    (directory / "test_batch.bin").write_bytes(content)
    return pictures, labels


@pytest.mark.parametrize("form", ["batches", "parent", "archive", "npz"])
def test_cifar10_is_read_alike_from_every_form(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    pictures, labels = write_cifar(folder)
    path = {"batches": folder, "parent": tmp_path, "archive": tmp_path / "packed", "npz": tmp_path / "c.npz"}[form]
    if form == "archive":
        path.mkdir()
        with tarfile.open(path / "cifar-10-binary.tar.gz", "w:gz") as archive:
            archive.add(folder, folder.name)
    if form == "npz":
        np.savez(path, x_train=pictures[:3], y_train=labels[:3, None], x_test=pictures, y_test=labels)
    pool = cifar10.load_pool(str(path))
    assert pool.test.inputs.shape == (4, 3, 32, 32)
    assert torch.equal(pool.test.inputs.permute(0, 2, 3, 1), torch.from_numpy(pictures))
    assert pool.test.targets.tolist() == labels.tolist()
    assert len(pool.train) == (3 if form == "npz" else 15)


def test_a_torn_cifar10_batch_is_named(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    torn = tmp_path / "data_batch_3.bin"
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(TaskError, match=r"data_batch_3\.bin: 9218 bytes are not a whole number of records"):
        cifar10.load_pool(str(tmp_path))
    torn.unlink()
    with pytest.raises(TaskError, match=r"data_batch_3\.bin cannot be read"):
        cifar10.load_pool(str(tmp_path))


def test_an_archive_that_is_torn_or_lacks_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("folder/a.bin")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"abcd"))
    assert bytes(read_archive(path, ["folder/a.bin"])["a.bin"].tolist()) == b"abcd"
    with pytest.raises(TaskError, match=r"a\.tar\.gz cannot be read: .*b\.bin"):
        read_archive(path, ["folder/b.bin"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(TaskError, match=r"a\.tar\.gz cannot be read"):
        read_archive(path, ["folder/a.bin"])


def test_arrays_that_are_missing_pickled_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones(2))
    with pytest.raises(TaskError, match=r"lacks the array .*y"):
        read_arrays(path, ("x", "y"))
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(TaskError, match=r"cannot be read as \.npz of numbers"):
        read_arrays(path, ("x",))
    path.write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(TaskError, match=r"cannot be read as \.npz of numbers"):
        read_arrays(path, ("x",))
    np.savez(path, x_train=np.ones((2, 32, 32)), y_train=np.ones(2), x_test=np.ones(1), y_test=np.ones(1))
    with pytest.raises(TaskError, match=r"pictures are float64 \(2, 32, 32\); they must be uint8"):
        cifar10.load_pool(str(path))


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(TaskError, match=r"test_batch\.bin: labels must be within 0\.\.9"):
        cifar10.load_pool(str(tmp_path))


@pytest.mark.parametrize("file", ["digits.csv.gz", "elsewhere.csv.gz"])
def test_the_digits_are_those_of_the_library_also_where_its_file_has_moved(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits, "_FILE", file)
    digits.load_pool.cache_clear()
    pool = digits.load_pool()
    inputs, targets = load_digits(return_X_y=True)
    assert len(pool.train) + len(pool.test) == len(inputs)
    known = {tuple(row): label for row, label in zip(inputs.tolist(), targets.tolist(), strict=True)}
    for samples in (pool.train, pool.test):
        rows = (samples.inputs * 16).tolist()
        assert [known[tuple(row)] for row in rows] == samples.targets.tolist()
