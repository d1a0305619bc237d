"""`concord models` against a real site: the table, each change, and what is said when it may not be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cli import Run, runner
from concord.apps.inference import InferenceSettings, create_app, create_inference
from concord.apps.model_routes import ModelOptions
from concord.apps.serve import Server, bind, in_thread
from concord.serving.choice import Gate
from concord.serving.snapshots import MemoryShelf
from concord.settings import Secret
from concord.site.ports import Heard, Lineage
from served_models import marked_snapshot, new_predictor

TOKEN = "a token that only operators have"


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    Path("token").write_text(TOKEN + "\n")
    return runner(capsys)


def site_with(options: ModelOptions) -> Iterator[str]:
    """A site whose version 3 is in service, 4 is held back, and 2 is older."""
    shelf = MemoryShelf()

    async def fill() -> None:
        lineage = Lineage(1, {"N2": Heard(29, 1, 31)}, 0.125)
        await shelf.publish(marked_snapshot(2, accuracy=0.8))
        await shelf.publish(replace(marked_snapshot(3, accuracy=0.9), lineage=lineage))

    asyncio.run(fill())
    service = create_inference(new_predictor(), shelf, InferenceSettings(models=options))
    with in_thread(Server(create_app(service), bind("127.0.0.1", 0))) as url:
        yield url


@pytest.fixture
def url() -> Iterator[str]:
    yield from site_with(ModelOptions(Gate("accuracy", 0.05), admin_token=Secret.from_text(TOKEN)))


@pytest.fixture
def closed() -> Iterator[str]:
    """One that was given no token."""
    yield from site_with(ModelOptions())


def served(concord: Run, url: str) -> int:
    """The version in service, once there is one."""
    for _ in range(1000):
        models = concord("models", "list", "--url", url, "--json").json["models"]
        if models and models[0]["state"] == "served":
            return int(models[0]["version"])
    raise AssertionError("nothing is served")


def test_the_table_shows_versions_where_they_come_from_and_what_they_are(concord: Run, url: str) -> None:
    assert served(concord, url) == 3
    shown = concord("models", "list", "--url", url).out
    lines = [line.split() for line in shown.splitlines()]
    assert next(line for line in lines if line[:1] == ["3"])[:4] == ["3", "served", "30", "240"]
    assert next(line for line in lines if line[:1] == ["2"])[:2] == ["2", "kept"]
    for word in ("accuracy 0.9", "0.125", "N2@29"):
        assert word in shown


def test_pin_roll_back_promote_and_unpin(concord: Run, url: str) -> None:
    assert served(concord, url) == 3
    proof = ("--url", url, "--token-file", "token")
    assert "version 2: kept, pinned" in concord("models", "pin", "2", *proof).out
    rolled = concord("models", "rollback", *proof)
    assert rolled.code == 0
    assert "version 2: served, pinned, held" in rolled.out
    assert "in service: version 2; newer ones are not followed" in rolled.out
    assert "newer ones are not followed" in concord("models", "list", "--url", url).out
    promoted = concord("models", "promote", "3", *proof, "--json").json
    assert (promoted["served"], promoted["following"]) == (3, True)
    assert "version 2: kept" in concord("models", "unpin", "2", *proof).out


def test_the_token_may_come_from_the_environment(concord: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(concord, url) == 3
    monkeypatch.setenv("CONCORD_ADMIN_TOKEN", TOKEN)
    assert concord("models", "pin", "2", "--url", url).code == 0
    monkeypatch.setenv("CONCORD_ADMIN_TOKEN", "another token of some length")
    refused = concord("models", "pin", "2", "--url", url)
    assert (refused.code, "Authorization: Bearer TOKEN" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pin", "9"), 1, "version 9 is not on the shelf"),
        (("unpin", "2"), 1, "version 2 is neither pinned nor held"),
        (("promote", "2"), 2, "roll back to it instead"),
        (("pin", "2", "--token-file", "missing"), 2, "missing cannot be read"),
    ],
)
def test_what_cannot_be_is_one_clear_message(
    concord: Run, url: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert served(concord, url) == 3
    ended = concord(
        "models", *arguments, "--url", url, *(() if "--token-file" in arguments else ("--token-file", "token"))
    )
    assert (ended.code, said in ended.err) == (code, True)


def test_a_site_without_a_token_says_how_it_would_get_one(concord: Run, closed: str) -> None:
    assert served(concord, closed) == 3
    ended = concord("models", "pin", "2", "--url", closed, "--token-file", "token")
    assert (ended.code, "--admin-token-file" in ended.err) == (1, True)


def test_nobody_there(concord: Run) -> None:
    ended = concord("models", "list", "--url", "http://127.0.0.1:1")
    assert (ended.code, "cannot be reached" in ended.err) == (1, True)
