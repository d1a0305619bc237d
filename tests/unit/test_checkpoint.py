"""Checkpoints on a real disk: whole or not at all, newest usable first; an incarnation only rises."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from concord.errors import CheckpointError
from concord.learning.checkpoint import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path)


def save(store: CheckpointStore, number: int, size: int = 4) -> Path:
    return store.save(number, {"primal": torch.full((size,), float(number))}, {"round": str(number)})


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow beyond `size` bytes, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_was_saved_comes_back(store: CheckpointStore) -> None:
    tensors = {"primal": torch.randn(5), "cursor": torch.tensor(3), "generator": torch.arange(9).byte()}
    path = store.save(7, tensors, {"site": "N1", "round": "3"})
    found = store.load_newest()
    assert found is not None
    assert (found.number, found.path, found.skipped) == (7, path, ())
    assert found.metadata == {"site": "N1", "round": "3"}
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())


def test_an_older_one_can_be_asked_for(store: CheckpointStore) -> None:
    for number in (1, 2, 3):
        store.save(number, {"primal": torch.tensor([float(number)])}, {})
    for before, wanted in ((None, 3), (3, 2), (2, 1), (1, 3)):
        found = store.load_newest(before)
        assert found is not None
        assert found.number == wanted


def test_an_empty_store_has_none(store: CheckpointStore) -> None:
    assert store.load_newest() is None


def test_the_directory_is_made_if_missing(tmp_path: Path) -> None:
    save(CheckpointStore(tmp_path / "state" / "N1"), 1)
    assert len(list((tmp_path / "state" / "N1").iterdir())) == 1


def test_only_the_newest_few_stay(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    paths = [save(store, number) for number in (1, 2, 10, 9)]
    assert sorted(tmp_path.iterdir()) == sorted([paths[2], paths[3]])


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_checkpoint_is_skipped_and_named(store: CheckpointStore, damage: str) -> None:
    save(store, 1)
    newest = save(store, 2)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"truncated": newest.read_bytes()[:-5], "altered": bytes(content), "empty": b""}[damage])
    found = store.load_newest()
    assert found is not None
    assert found.number == 1
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith(f"{newest}: ")


def test_a_later_save_drops_nothing_that_is_newer(store: CheckpointStore) -> None:
    save(store, 5)
    save(store, 4)
    found = store.load_newest()
    assert found is not None
    assert found.number == 5


def test_only_damaged_checkpoints_are_an_error(store: CheckpointStore) -> None:
    paths = [save(store, number) for number in (1, 2)]
    for path in paths:
        path.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="no usable checkpoint") as caught:
        store.load_newest()
    assert all(str(path) in str(caught.value) for path in paths)


def test_a_full_disk_leaves_the_previous_one_and_no_rest(store: CheckpointStore, tmp_path: Path) -> None:
    kept = save(store, 1)
    with files_limited_to(100_000), pytest.raises(CheckpointError, match=f"{kept.name} is kept") as caught:
        save(store, 2, size=100_000)
    assert "checkpoint-00000000000000000002.sealed was not written" in str(caught.value)
    assert list(tmp_path.iterdir()) == [kept]
    found = store.load_newest()
    assert found is not None
    assert found.number == 1


def test_a_full_disk_at_the_first_checkpoint_says_that_there_is_none(store: CheckpointStore) -> None:
    with files_limited_to(100), pytest.raises(CheckpointError, match="there is no earlier checkpoint"):
        save(store, 1)


def test_a_directory_that_went_away_is_an_error(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "state")
    (tmp_path / "state").rmdir()
    with pytest.raises(CheckpointError, match="was not written"):
        save(store, 1)
    with pytest.raises(CheckpointError, match="was not written"):
        store.next_incarnation()


def test_a_file_in_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(CheckpointError, match="cannot hold checkpoints"):
        CheckpointStore(tmp_path / "state")


def test_the_rest_of_a_killed_writer_is_cleared_away(tmp_path: Path) -> None:
    kept = save(CheckpointStore(tmp_path), 1)
    (tmp_path / "checkpoint-00000000000000000002.sealed.tmp").write_bytes(b"half")
    CheckpointStore(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_the_incarnation_rises_with_every_store_and_above_the_floor(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path).next_incarnation() == 1
    assert CheckpointStore(tmp_path).next_incarnation() == 2
    assert CheckpointStore(tmp_path).next_incarnation(floor=40) == 41
    assert CheckpointStore(tmp_path).next_incarnation(floor=3) == 42


def test_an_incarnation_that_is_no_number_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    (tmp_path / "incarnation").write_text("many")
    with pytest.raises(CheckpointError, match=r"incarnation does not hold a number .* delete it"):
        store.next_incarnation()
