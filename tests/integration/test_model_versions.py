"""The versions of a model at a real server over a real Redis: who may change what, and what survives a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import torch

from concord.apps.inference import InferenceService, InferenceSettings, create_app, create_inference
from concord.apps.model_routes import ModelOptions
from concord.apps.serve import Server, bind
from concord.serving.choice import Gate
from concord.serving.packing import pack_model
from concord.serving.snapshots import RedisShelf
from concord.settings import Secret
from concord.site.ports import Heard, Lineage, Snapshot
from served_models import ROW, build_model, marked_model, marked_snapshot, new_predictor, snapshot_of

pytestmark = pytest.mark.anyio

TOKEN = "a token that only operators have"
GUARDED = ModelOptions(admin_token=Secret.from_text(TOKEN))
GATED = replace(GUARDED, gate=Gate("accuracy", drop=0.1))
V2 = {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}]}
Json = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """Inference at a real port, and a publisher as a trainer has it."""

    client: httpx.AsyncClient
    service: InferenceService
    shelf: RedisShelf

    async def publish(self, *versions: int, accuracy: float = 0.5) -> None:
        for version in versions:
            await self.shelf.publish(marked_snapshot(version, accuracy))

    async def serves(self, version: int) -> None:
        await until(lambda: self.served == version)

    async def noted(self, version: int) -> None:
        """Once that version is in service and the shelf knows."""
        await self.serves(version)
        async with asyncio.timeout(5):
            while (await self.shelf.stock()).marks.served != version:
                await asyncio.sleep(0.001)

    @property
    def served(self) -> int | None:
        served = self.service.predictor.served
        return None if served is None else served.snapshot.version

    async def post(self, path: str, token: str = TOKEN, status: int = 200) -> Json:
        answer = await self.client.post(f"/v1/models/{path}", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def models(self) -> Json:
        return dict((await self.client.get("/v1/models")).json())

    async def states(self) -> dict[int, str]:
        """The state of each version, and its marks."""
        return {
            model["version"]: " ".join([model["state"], *(word for word in ("pinned", "held") if model[word])])
            for model in (await self.models())["models"]
        }


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


Start = Callable[[ModelOptions], Any]


@pytest.fixture
def start(redis_url: str, federation: str) -> Start:
    """Starts inference of one site, again and again with the same Redis."""

    @asynccontextmanager
    async def started(options: ModelOptions) -> AsyncIterator[Site]:
        ours, trainers = (RedisShelf(redis_url, federation, "N1", keep=3) for _ in range(2))
        service = create_inference(new_predictor(), ours, InferenceSettings(models=options))
        server = Server(create_app(service), bind("127.0.0.1", 0))
        client = httpx.AsyncClient(base_url=server.url)
        try:
            async with server.running(), client:
                yield Site(client, service, trainers)
        finally:
            await ours.close()
            await trainers.close()

    return started


PATHS = ("2/pin", "2/unpin", "1/rollback", "rollback", "2/promote")


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_token_nobody_may_change_anything(start: Start, path: str) -> None:
    async with start(ModelOptions()) as site:
        await site.publish(1, 2)
        await site.serves(2)
        refused = await site.post(path, status=403)
        assert "--admin-token-file" in refused["error"]
        assert await site.states() == {2: "served", 1: "kept"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"]
)
async def test_without_the_right_token_in_the_request_neither(start: Start, path: str, header: str | None) -> None:
    async with start(GUARDED) as site:
        await site.publish(1, 2)
        await site.serves(2)
        headers = {} if header is None else {"Authorization": header.encode()}
        answer = await site.client.post(f"/v1/models/{path}", headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert TOKEN not in answer.text
        assert await site.states() == {2: "served", 1: "kept"}


async def test_the_list_tells_where_each_version_comes_from(start: Start) -> None:
    async with start(GUARDED) as site:
        lineage = Lineage(3, {"N2": Heard(29, 1, 31)}, 0.125)
        await site.shelf.publish(replace(marked_snapshot(3), lineage=lineage))
        await site.serves(3)
        (model,) = (await site.models())["models"]
        assert model["lineage"] == {
            "incarnation": 3,
            "heard": {"N2": {"round": 29, "incarnation": 1, "sequence": 31}},
            "consensus_distance": 0.125,
        }
        assert (model["state"], model["metrics"], model["personal"]) == ("served", {"accuracy": 0.5}, None)


async def test_a_pinned_version_stays_and_newer_ones_are_followed(start: Start) -> None:
    async with start(GUARDED) as site:
        await site.publish(1, 2)
        await site.serves(2)
        answer = await site.post("1/pin")
        assert (answer["model"]["state"], answer["served"], answer["following"]) == ("kept", 2, True)
        for version in range(3, 9):
            await site.publish(version)
            await site.noted(version)
        await site.publish(9)
        await site.noted(9)
        assert await site.states() == {9: "served", 8: "kept", 7: "kept", 1: "kept pinned"}
        old = await site.client.post("/v2/models/animals/versions/1/infer", json=V2)
        assert old.json()["outputs"][0]["data"][0] == 1.0
        await site.post("1/unpin")
        await site.publish(10)
        await site.noted(10)
        assert 1 not in await site.states()


async def test_to_pin_what_is_served_is_to_stay_with_it(start: Start) -> None:
    async with start(GUARDED) as site:
        await site.publish(1)
        await site.serves(1)
        assert (await site.post("1/pin"))["following"] is False
        await site.publish(2, 3)
        await until(lambda: site.service.watcher.stock.newest == 3)
        assert await site.states() == {1: "served pinned held", 3: "candidate", 2: "candidate"}
        assert (await site.post("1/unpin"))["following"] is True
        await site.serves(3)


async def test_a_roll_back_stays_until_it_is_let_go(start: Start) -> None:
    async with start(GUARDED) as site:
        await site.publish(1, 2, 3)
        await site.serves(3)
        answer = await site.post("rollback")
        assert (answer["model"]["version"], answer["served"], answer["following"]) == (2, 2, False)
        await site.publish(4, 5, 6, 7)
        await until(lambda: site.service.watcher.stock.newest == 7)
        assert site.served == 2
        assert (await site.client.post("/v1/predict", json={"inputs": ROW})).json()["model"]["version"] == 2
        await site.post("2/unpin")
        await site.serves(7)
        assert (await site.post("5/rollback"))["served"] == 5
        assert (await site.post("6/promote"))["served"] == 6
        assert (await site.models())["following"] is True
        await site.publish(8)
        await site.serves(8)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("9/pin", 404, "version 9 is not on the shelf"),
        ("9/promote", 404, "version 9 is not on the shelf"),
        ("1/unpin", 404, "version 1 is neither pinned nor held"),
        ("x/pin", 404, "versions are decimal numbers"),
        ("-1/pin", 404, "versions are decimal numbers"),
        ("2/delete", 404, "'delete' should be one of pin, unpin, rollback, promote"),
        ("3/rollback", 409, "promote it instead"),
        ("1/promote", 409, "roll back to it instead"),
    ],
)
async def test_what_cannot_be_is_refused_and_says_why(start: Start, path: str, status: int, said: str) -> None:
    async with start(GUARDED) as site:
        await site.publish(1, 2)
        await site.serves(2)
        await site.post("2/pin")
        await site.publish(3)
        await until(lambda: site.service.watcher.stock.newest == 3)
        assert said in (await site.post(path, status=status))["error"]
        assert await site.states() == {2: "served pinned held", 3: "candidate", 1: "kept"}


async def test_there_must_be_something_to_roll_back_to(start: Start) -> None:
    async with start(GUARDED) as site:
        assert "no version" in (await site.post("rollback", status=409))["error"]
        await site.publish(1)
        await site.serves(1)
        assert "no version" in (await site.post("rollback", status=409))["error"]


async def test_a_snapshot_that_cannot_be_loaded_is_not_rolled_back_to(start: Start) -> None:
    async with start(GUARDED) as site:
        await site.publish(1)
        await site.serves(1)
        await site.shelf.publish(snapshot_of(build_model(), 2, fingerprint="beef"))
        await until(lambda: len(site.service.watcher.refused) == 1)
        assert await site.states() == {1: "served", 2: "refused"}
        assert "cannot be loaded" in (await site.post("2/promote", status=409))["error"]


async def test_a_model_that_got_worse_is_held_back_until_it_is_promoted(start: Start) -> None:
    async with start(GATED) as site:
        await site.publish(1, accuracy=0.9)
        await site.serves(1)
        await site.publish(2, accuracy=0.7)
        await until(lambda: site.service.watcher.state.held_back == (2,))
        models = await site.models()
        assert [model["state"] for model in models["models"]] == ["served", "held back"]
        assert models["models"][1]["reason"] == "accuracy fell by 0.2, from 0.9 to 0.7; 0.1 is allowed"
        assert models["gate"] == {"metric": "accuracy", "drop": 0.1, "lower_is_better": False}
        await site.publish(3, accuracy=0.6)
        await until(lambda: site.service.watcher.state.held_back == (2, 3))
        assert (await site.post("2/promote"))["served"] == 2
        await site.publish(4, accuracy=0.65)  # is compared with 2 now
        await site.serves(4)
        assert site.service.watcher.state.held_back_total == 2


async def test_what_is_served_stays_on_the_shelf_though_many_are_held_back(start: Start) -> None:
    async with start(GATED) as site:
        await site.publish(1, accuracy=0.9)
        await site.serves(1)
        await until(lambda: site.service.watcher.stock.newest == 1)
        for version in range(2, 9):
            await site.publish(version, accuracy=0.1)
        await until(lambda: site.service.watcher.stock.newest == 8)
        assert list(await site.states()) == [1, 8, 7, 6]


async def test_a_restart_of_inference_forgets_neither_marks_nor_what_was_good_enough(start: Start) -> None:
    async with start(GATED) as site:
        await site.publish(1, 2, accuracy=0.9)
        await site.serves(2)
        assert (await site.post("1/pin"))["following"] is True
        await site.publish(3, accuracy=0.2)
        await until(lambda: site.service.watcher.state.held_back == (3,))
    async with start(GATED) as site:
        await site.serves(2)
        assert await site.states() == {2: "served", 3: "held back", 1: "kept pinned"}
        await site.post("1/rollback")
    async with start(GATED) as site:
        await site.serves(1)
        assert await site.states() == {1: "served pinned held", 3: "held back", 2: "candidate"}
        await site.publish(4, accuracy=0.9)
        await until(lambda: site.service.watcher.stock.newest == 4)
        assert site.served == 1


async def test_two_replicas_agree(start: Start) -> None:
    async with start(GUARDED) as one, start(GUARDED) as other:
        await one.publish(1, 2)
        await one.serves(2)
        await other.serves(2)
        await one.post("rollback")
        await other.serves(1)
        assert (await other.models())["following"] is False
        await other.post("2/promote")
        await one.serves(2)


def with_variant(version: int) -> Snapshot:
    """A snapshot whose own variant answers with a hundred times as much."""
    own = {"bias": torch.tensor([100.0 * version, 0.0, -100.0 * version])}
    blob = pack_model(marked_model(float(version)), own)
    return replace(marked_snapshot(version), blob=blob, personal={"accuracy": 0.75})


async def test_the_sites_own_variant_is_asked_for_by_name(start: Start) -> None:
    async with start(GUARDED) as site:
        await site.shelf.publish(with_variant(1))
        await site.shelf.publish(with_variant(2))
        await site.serves(2)
        for name, version, expected in (
            ("animals", "", 2.0),
            ("animals-personal", "", 200.0),
            ("animals-personal", "/versions/1", 100.0),
        ):
            answer = (await site.client.post(f"/v2/models/{name}{version}/infer", json=V2)).json()
            assert (answer["model_name"], answer["outputs"][0]["data"][0]) == (name, expected)
            plain = await site.client.post("/v1/predict", params={"model": name}, json={"inputs": ROW})
            assert plain.json()["model"]["name"] == name
        assert (await site.client.get("/v2/models/animals-personal/ready")).status_code == 200
        (model, _) = (await site.models())["models"]
        assert model["personal"] == {"name": "animals-personal", "metrics": {"accuracy": 0.75}}


async def test_where_there_is_no_variant_its_name_is_unknown(start: Start) -> None:
    async with start(GUARDED) as site:
        await site.publish(1)
        await site.serves(1)
        for answer in (
            await site.client.post("/v2/models/animals-personal/infer", json=V2),
            await site.client.post("/v1/predict?model=animals-personal", json={"inputs": ROW}),
            await site.client.post("/v1/predict?model=plants", json={"inputs": ROW}),
        ):
            assert (answer.status_code, answer.json()["field"]) == (404, "model_name")


async def test_a_candidate_is_compared_on_real_requests(start: Start) -> None:
    async with start(replace(GATED, shadow=1.0)) as site:
        await site.publish(1, accuracy=0.9)
        await site.serves(1)
        await site.shelf.publish(snapshot_of(marked_model(-1.0), 2, accuracy=0.1))
        await until(lambda: site.service.models.shadow.candidate is not None)
        for _ in range(5):
            assert (await site.client.post("/v1/predict", json={"inputs": [ROW, ROW]})).status_code == 200
        await until(lambda: site.service.models.shadow.state.compared == 5)
        models = await site.models()
        assert models["shadow"] == {"share": 1.0, "version": 2, "compared": 5, "dropped": 0, "failed": 0}
        report = models["models"][1]["shadow"]
        assert (report["against"], report["rows"], report["different_winners"]) == (1, 10, 1.0)
        assert report["mean_abs_difference"] > 0.3
        await site.post("2/promote")
        assert (await site.models())["shadow"]["version"] is None


async def test_the_list_goes_on_without_the_shelf(start: Start) -> None:
    async with start(GUARDED) as site:
        await site.publish(1)
        await site.serves(1)
        await site.service.models.shelf.close()
        models = await site.models()
        assert "out of reach" in models["problem"]
        assert [model["version"] for model in models["models"]] == [1]
        answer = await site.client.post("/v1/models/1/pin", headers={"Authorization": f"Bearer {TOKEN}"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
