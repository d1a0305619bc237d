"""Predictions over HTTP: the protocol's routes, every kind of refusal, and swaps under load."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from concord.apps.inference import InferenceService, InferenceSettings, create_app, create_inference
from concord.apps.inference_errors import TABLE
from concord.apps.serve import Server, bind
from concord.errors import RefusalReason
from concord.learning.pictures import PictureForm
from concord.serving.batching import BatchLimits
from concord.serving.predictor import Predictor
from concord.serving.watcher import WatchTimes
from served_models import (
    CLASSES,
    FINGERPRINT,
    ROW,
    FragileShelf,
    build_model,
    marked_snapshot,
    new_predictor,
    snapshot_of,
)

pytestmark = pytest.mark.anyio

BODY_LIMIT = 4096
SETTINGS = InferenceSettings(
    max_body_bytes=BODY_LIMIT, watch=WatchTimes(patience=5, first_rest=0.01, longest_rest=0.02)
)
INFER = "/v2/models/animals/infer"
TENSOR = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}
V2 = {"inputs": [TENSOR]}
V1 = {"inputs": ROW}


@dataclass(frozen=True)
class Site:
    """A prediction service under test, a client for it, and the shelf it follows."""

    client: httpx.AsyncClient
    service: InferenceService
    shelf: FragileShelf

    async def publish(self, version: int) -> None:
        """Publish a model that answers with its version, and return once it is in service."""
        await self.shelf.publish(marked_snapshot(version))
        await until(lambda: self.served_version() == version)

    def served_version(self) -> int | None:
        served = self.service.predictor.served
        return None if served is None else served.snapshot.version


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def pictured() -> Predictor:
    """For the model of the others, whose rows here are grey pictures of two by two pixels."""
    return Predictor(build_model, CLASSES, (4,), "animals", FINGERPRINT, picture=PictureForm(1, 2, 2))


def png(pixels: bytes) -> bytes:
    file = BytesIO()
    Image.frombytes("L", (2, 2), pixels).save(file, "PNG")
    return file.getvalue()


@asynccontextmanager
async def new_site(options: InferenceSettings = SETTINGS, predictor: Predictor | None = None) -> AsyncIterator[Site]:
    shelf = FragileShelf()
    service = create_inference(predictor or new_predictor(), shelf, options)
    transport = httpx.ASGITransport(create_app(service))
    async with service.running(), httpx.AsyncClient(transport=transport, base_url="http://site") as client:
        yield Site(client, service, shelf)


@pytest.fixture
async def empty_site() -> AsyncIterator[Site]:
    """Nothing published yet."""
    async with new_site() as site:
        yield site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """Version 3 in service, and version 2 on the shelf."""
    async with new_site() as site:
        await site.shelf.publish(marked_snapshot(2))
        await site.publish(3)
        yield site


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2", {"name": "concord", "extensions": ["binary_tensor_data", "classification", "model_repository"]}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/healthz", {"live": True}),
        ("/readyz", {"ready": True}),
        ("/v2/models/animals", {"name": "animals", "versions": ["3"], "platform": "pytorch"}),
        ("/v2/models/animals/ready", {"name": "animals", "ready": True}),
        ("/v2/models/animals/versions/3", {"name": "animals", "versions": ["3"]}),
        ("/v2/models/animals/versions/3/ready", {"name": "animals", "ready": True}),
        ("/v2/models/animals/versions/2/ready", {"name": "animals", "ready": True}),
    ],
)
async def test_health_and_metadata(site: Site, path: str, body: dict[str, object]) -> None:
    answer = await site.client.get(path)
    assert answer.status_code == 200
    assert {key: answer.json()[key] for key in body} == body


async def test_an_inference_answer_says_which_model_gave_it(site: Site) -> None:
    answer = await site.client.post(INFER, json={**V2, "id": "q"})
    body = answer.json()
    assert answer.status_code == 200
    assert (body["model_name"], body["model_version"], body["id"]) == ("animals", "3", "q")
    assert body["outputs"][0]["data"] == [3.0, 0.0, -3.0]
    assert answer.headers["Concord-Model-Version"] == "3"
    assert answer.headers["Concord-Model-Round"] == "30"
    assert answer.headers["Content-Type"] == "application/json"


async def test_a_plain_prediction(site: Site) -> None:
    answer = await site.client.post("/v1/predict", json={"inputs": [ROW, ROW]})
    body = answer.json()
    assert body["model"] == {"name": "animals", "version": 3, "round": 30}
    assert [(row["label"], row["class"]) for row in body["predictions"]] == [("cat", 0)] * 2
    assert answer.headers["Concord-Model-Version"] == "3"


async def test_an_older_version_answers_while_it_is_on_the_shelf(site: Site) -> None:
    for _ in range(2):
        answer = await site.client.post("/v2/models/animals/versions/2/infer", json=V2)
        assert answer.json()["model_version"] == answer.headers["Concord-Model-Version"] == "2"
        assert answer.json()["outputs"][0]["data"][0] == 2.0
    assert site.served_version() == 3
    metadata = await site.client.get("/v2/models/animals")
    assert metadata.json()["versions"] == ["2", "3"]


async def test_versions_of_a_shelf_that_started_over_are_not_mixed_up(site: Site) -> None:
    await site.client.get("/v2/models/animals/versions/2/ready")
    await site.shelf.die()
    site.shelf.start_over()
    await site.shelf.publish(snapshot_of(build_model(), 1))
    await until(lambda: site.served_version() == 1)
    answer = await site.client.get("/v2/models/animals/versions/2/ready")
    assert answer.status_code == 404


async def test_the_list_of_models_says_what_is_known_of_them(site: Site) -> None:
    model, older = (await site.client.get("/v1/models")).json()["models"]
    assert (older["version"], older["state"]) == (2, "kept")
    assert model["age_seconds"] > 0
    assert model["metrics"] == {"accuracy": 0.5}
    assert (model["name"], model["version"], model["round"], model["step"]) == ("animals", 3, 30, 240)
    assert (model["classes"], model["input_shape"]) == (list(CLASSES), [4])


async def test_before_the_first_model_everything_but_life_waits(empty_site: Site) -> None:
    client = empty_site.client
    assert (await client.get("/v2/health/live")).status_code == 200
    assert (await client.get("/v1/models")).json()["models"] == []
    gets = ("/v2/health/ready", "/v2/models/animals", "/v2/models/animals/ready")
    answers = [await client.get(path) for path in gets]
    answers += [await client.post(INFER, json=V2), await client.post("/v1/predict", json=V1)]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert "published" in answer.json()["error"]


@pytest.mark.parametrize("route", ["", "/ready", "/infer"])
@pytest.mark.parametrize("model", ["plants", "animals/versions/9", "animals/versions/x", "animals/versions/²"])
async def test_an_unknown_model_or_version_is_404(site: Site, model: str, route: str) -> None:
    method = "POST" if route == "/infer" else "GET"
    answer = await site.client.request(method, f"/v2/models/{model}{route}", json=V2)
    assert answer.status_code == 404
    assert answer.json()["field"] in ("model_name", "model_version")


async def test_a_snapshot_on_the_shelf_that_cannot_be_served_is_404(site: Site) -> None:
    await site.shelf.publish(snapshot_of(build_model(), 1, fingerprint="beef"))
    answer = await site.client.post("/v2/models/animals/versions/1/infer", json=V2)
    assert answer.status_code == 404
    assert "fingerprint" in answer.json()["error"]


BAD: dict[str, tuple[str, bytes, int, str]] = {
    "not JSON": (INFER, b"{", 400, "body"),
    "no object": (INFER, b"[]", 400, "body"),
    "binary": (INFER, b"\x00\xff", 400, "body"),
    "shape": (INFER, json.dumps({"inputs": [{**TENSOR, "shape": [4]}]}).encode(), 400, "inputs[0].shape"),
    "datatype": (
        INFER,
        json.dumps({"inputs": [{**TENSOR, "datatype": "FP31"}]}).encode(),
        400,
        "inputs[0].datatype",
    ),
    "NaN": (
        INFER,
        json.dumps({"inputs": [{**TENSOR, "data": [0, 0, float("nan"), 0]}]}).encode(),
        400,
        "inputs[0].data[0][2]",
    ),
    "output": (
        INFER,
        json.dumps({**V2, "outputs": [{"name": "x"}]}).encode(),
        400,
        "outputs[0].name",
    ),
    "too long": (INFER, json.dumps(V2).encode() + b" " * BODY_LIMIT, 413, "body"),
    "plain, not JSON": ("/v1/predict", b"", 400, "body"),
    "plain, no inputs": ("/v1/predict", b"{}", 400, "inputs"),
    "plain, short row": ("/v1/predict", b'{"inputs": [1, 2]}', 400, "inputs"),
    "plain, a word": ("/v1/predict", b'{"inputs": [1, 2, 3, "x"]}', 400, "inputs[3]"),
    "plain, infinity": ("/v1/predict", b'{"inputs": [1, 2, 3, Infinity]}', 400, "inputs[3]"),
    "plain, too long": ("/v1/predict", b" " * (BODY_LIMIT + 1), 413, "body"),
}


@pytest.mark.parametrize(("path", "body", "status", "field"), BAD.values(), ids=BAD)
async def test_bad_input_is_refused_with_the_field_and_what_was_expected(
    site: Site, path: str, body: bytes, status: int, field: str
) -> None:
    answer = await site.client.post(path, content=body)
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (status, field)
    assert problem["expected"]
    assert field in problem["error"]


async def test_a_body_of_unknown_length_is_cut_off_at_the_limit(site: Site) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 1024

    answer = await site.client.post(INFER, content=endless())
    assert answer.status_code == 413
    assert sent <= BODY_LIMIT / 1024 + 1


async def test_older_versions_are_503_while_the_shelf_is_away_and_the_newest_goes_on(site: Site) -> None:
    await site.shelf.die()
    older = await site.client.post("/v2/models/animals/versions/2/infer", json=V2)
    assert older.status_code == 503
    assert older.headers["Retry-After"] == "1"
    assert (await site.client.post(INFER, json=V2)).status_code == 200


async def test_requests_are_counted_by_route_and_status_with_their_latency(site: Site) -> None:
    await site.client.post("/v1/predict", json={"inputs": [ROW] * 5})
    await site.client.post("/v1/predict", json={"inputs": []})
    state = site.service.state
    assert state.requests == {("predict", 200): 1, ("predict", 400): 1}
    assert (state.rows, state.errors) == (5, 1)
    assert sum(state.latency["predict"].counts) == 2
    assert state.latency["predict"].total > 0


async def test_a_slow_model_is_answered_from_its_own_thread_alike(site: Site) -> None:
    inline = (await site.client.post(INFER, json=V2)).json()
    async with new_site(InferenceSettings(batch=BatchLimits(inline_seconds=0.0))) as other:
        await other.publish(3)
        assert (await other.client.post(INFER, json=V2)).json() == inline
        refused = await other.client.post(INFER, json={})
        assert refused.status_code == 400


@pytest.mark.parametrize("kind", ["the body", "a form"])
async def test_a_picture_is_predicted_as_its_pixels_are(kind: str) -> None:
    async with new_site(predictor=pictured()) as site:
        await site.publish(3)
        file = png(bytes([1, 2, 3, 4]))
        if kind == "the body":
            answer = await site.client.post("/v1/predict", content=file, headers={"Content-Type": "image/png"})
        else:
            answer = await site.client.post("/v1/predict", files={"file": ("a.png", file, "image/png")})
        rows = await site.client.post("/v1/predict", json={"inputs": [1, 2, 3, 4]})
    assert answer.status_code == 200, answer.text
    assert answer.json() == rows.json()


async def test_a_picture_is_415_where_the_task_has_none_or_the_type_is_not_read(site: Site) -> None:
    answer = await site.client.post("/v1/predict", content=png(b"1234"), headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.json()["field"]) == (415, "body")
    async with new_site(predictor=pictured()) as other:
        await other.publish(3)
        tiff = await other.client.post("/v1/predict", content=b"II*", headers={"Content-Type": "image/tiff"})
        torn = await other.client.post("/v1/predict", content=b"\x89PNG", headers={"Content-Type": "image/png"})
    assert (tiff.status_code, tiff.json()["field"]) == (415, "Content-Type")
    assert (torn.status_code, torn.json()["field"]) == (400, "body")


@pytest.mark.parametrize("given", ["x", "-1", "²", "999999"])
async def test_a_header_that_does_not_say_how_much_is_json_is_400(site: Site, given: str) -> None:
    headers = [(b"Inference-Header-Content-Length", given.encode())]
    answer = await site.client.post(INFER, content=json.dumps(V2), headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (400, "Inference-Header-Content-Length")


async def test_numbers_that_drive_the_model_beyond_float32_are_400_with_their_place(site: Site) -> None:
    model = build_model()
    with torch.no_grad():
        model.get_parameter("weight").fill_(1e10)
    await site.shelf.publish(snapshot_of(model, 4))
    await until(lambda: site.served_version() == 4)
    wild = {"inputs": [{**TENSOR, "data": [3e38] * 4}]}
    answers = await asyncio.gather(*(site.client.post(INFER, json=body) for body in (wild, V2)))
    assert [answer.status_code for answer in answers] == [400, 200]
    assert answers[0].json()["field"] == "inputs[0].data"


async def test_nobody_unloads_the_model_without_the_admin_token(site: Site) -> None:
    for verb in ("load", "unload"):
        answer = await site.client.post(f"/v2/repository/models/animals/{verb}")
        assert answer.status_code == 403
        assert "--admin-token-file" in answer.json()["error"]
    assert (await site.client.post(INFER, json=V2)).status_code == 200


async def test_the_repository_lists_what_is_loaded(site: Site, empty_site: Site) -> None:
    index = "/v2/repository/index"
    await site.client.get("/v2/models/animals/versions/2/ready")
    listed = (await site.client.post(index)).json()
    assert [(entry["version"], entry["state"]) for entry in listed] == [("2", "READY"), ("3", "READY")]
    assert (await site.client.post(index, json={"ready": 1})).status_code == 400
    assert [entry["state"] for entry in (await empty_site.client.post(index)).json()] == ["UNAVAILABLE"]
    assert (await empty_site.client.post(index, json={"ready": True})).json() == []


async def test_the_documentation_page_knows_the_routes(site: Site) -> None:
    paths = (await site.client.get("/openapi.json")).json()["paths"]
    infer = paths["/v2/models/{name}/infer"]["post"]
    assert infer["parameters"][0]["name"] == "name"
    assert infer["responses"].keys() == {"200", "400", "404", "413", "415", "429", "503", "default"}
    assert "Retry-After" in infer["responses"]["429"]["headers"]
    assert infer["requestBody"]["content"]["application/json"]["example"]
    assert "image/png" in paths["/v1/predict"]["post"]["requestBody"]["content"]


def test_the_table_of_refusals_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "inference.md").read_text()
    for refusal in TABLE:
        again = "`Retry-After`" if refusal.again else ""
        assert f"| {refusal.status} | {refusal.when} | {again} |".replace("|  |", "| |") in text


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(ROW),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*TENSOR, "inputs", "outputs", "id"]), inner, max_size=4)
    ),
    max_leaves=12,
)
REQUESTS = st.one_of(
    ANYTHING,
    st.fixed_dictionaries({"inputs": ANYTHING}),
    st.builds(lambda key, value: {"inputs": [{**TENSOR, key: value}]}, st.sampled_from([*TENSOR]), ANYTHING),
    st.builds(lambda key, value: {**V2, key: value}, st.sampled_from(["id", "outputs", "parameters"]), ANYTHING),
)


async def check_never_500(bodies: list[tuple[str, bytes]]) -> None:
    """Send bodies to a service; what is not an answer must be a refusal in the form of all refusals."""
    async with new_site() as site:
        await site.publish(3)
        for path, body in bodies:
            answer = await site.client.post(path, content=body)
            assert answer.status_code in (200, 400, 413), (path, body)
            if answer.status_code != 200:
                assert {"error", "field", "expected"} <= answer.json().keys()


@given(
    st.lists(
        st.tuples(
            st.sampled_from([INFER, "/v1/predict", "/v2/models/animals/versions/3/infer"]),
            REQUESTS.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50),
        ),
        min_size=5,
        max_size=20,
    )
)
@settings(max_examples=30, deadline=None)
def test_no_input_whatever_makes_the_service_fail(bodies: list[tuple[str, bytes]]) -> None:
    asyncio.run(check_never_500(bodies))


@asynccontextmanager
async def real_server(options: InferenceSettings = SETTINGS) -> AsyncIterator[Site]:
    """As `new_site`, but behind a real server on loopback, with its connections kept open."""
    shelf = FragileShelf()
    service = create_inference(new_predictor(), shelf, options)
    server = Server(create_app(service), bind("127.0.0.1", 0))
    async with server.running(), httpx.AsyncClient(base_url=server.url) as client:
        yield Site(client, service, shelf)


@dataclass
class Hammer:
    """Callers that ask again and again until told to stop, each over one connection kept open."""

    url: httpx.URL
    answered: int = 0
    versions: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    stopped: bool = False

    async def run(self) -> None:
        # A bare socket: a client library would cost several times what it measures.
        reader, writer = await asyncio.open_connection(self.url.host, self.url.port)
        body = json.dumps({**V2, "outputs": [{"name": "output"}]}).encode()
        head = f"POST {INFER} HTTP/1.1\r\nHost: site\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        while not self.stopped:
            writer.write(head + body)
            self._judge(*await read_answer(reader))
        writer.close()
        await writer.wait_closed()

    def _judge(self, head: str, body: bytes) -> None:
        version = int(header(head, "Concord-Model-Version") or -1)
        if not head.startswith("HTTP/1.1 200") or not from_one_model(version, head, json.loads(body)):
            self.wrong.append(head + body.decode())
        self.versions.add(version)
        self.answered += 1


async def read_answer(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Head and body of one answer with a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
    return head, await reader.readexactly(int(header(head, "Content-Length")))


def header(head: str, name: str) -> str:
    """One header's value, or nothing."""
    pairs = (line.partition(": ") for line in head.split("\r\n"))
    return next((value for key, _, value in pairs if key.lower() == name.lower()), "")


def from_one_model(version: int, head: str, body: dict[str, Any]) -> bool:
    """Whether weights, version and round of an answer are all those of one model."""
    return (
        body["outputs"][0]["data"] == [float(version), 0.0, -float(version)]
        and body["model_version"] == str(version)
        and body["parameters"] == {"round": 10 * version, "step": 80 * version}
        and header(head, "Concord-Model-Round") == str(10 * version)
    )


@pytest.mark.parametrize(
    "options",
    [SETTINGS, replace(SETTINGS, batch=BatchLimits(inline_seconds=0.0))],
    ids=["on the loop", "in its thread"],
)
async def test_swaps_under_load_fail_no_request_and_mix_no_two_models(options: InferenceSettings) -> None:
    callers, swaps = 4, 200
    async with real_server(options) as site:
        hammer = Hammer(site.client.base_url)
        await site.publish(0)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(hammer.run())
            for version in range(1, swaps + 1):
                await site.publish(version)
                # One answer per caller may still come from the model before; the next is from this one.
                await hammered(hammer, hammer.answered + callers + 1)
            hammer.stopped = True
    assert hammer.wrong == []
    assert hammer.versions >= set(range(1, swaps + 1))
    assert site.service.predictor.state.swaps == swaps + 1
    assert site.service.state.errors == 0


async def hammered(hammer: Hammer, answers: int) -> None:
    """Return once so many answers have come in all."""
    await until(lambda: hammer.answered >= answers)


async def test_a_snapshot_of_another_model_changes_nothing_for_the_callers() -> None:
    async with real_server() as site:
        await site.publish(1)
        await site.shelf.publish(snapshot_of(build_model(), 2, fingerprint="beef"))
        refused = site.service.predictor.state.refused
        await until(lambda: refused[RefusalReason.FINGERPRINT] == 1)
        assert (await site.client.post(INFER, json=V2)).json()["model_version"] == "1"
        await site.publish(3)
        assert (await site.client.post(INFER, json=V2)).json()["model_version"] == "3"


async def test_callers_move_on_without_a_failure_while_a_server_stops() -> None:
    """As in a rolling upgrade: callers keep their connections until they are asked to come over another."""
    shelf = FragileShelf()
    await shelf.publish(marked_snapshot(1))
    service = create_inference(new_predictor(), shelf, SETTINGS)
    server = Server(create_app(service), bind("127.0.0.1", 0), drain=0.5)
    async with real_server() as other, server.running():
        await other.publish(2)
        await until(lambda: service.predictor.served is not None)
        versions: list[list[str]] = []

        async def call(seen: list[str]) -> None:
            async with httpx.AsyncClient() as client:
                base = server.url
                while seen.count("2") < 5:
                    answer = await client.post(base + INFER, json=V2)
                    assert answer.status_code == 200
                    seen.append(answer.json()["model_version"])
                    if answer.headers.get("connection") == "close":
                        base = str(other.client.base_url)

        async with asyncio.TaskGroup() as callers:
            for _ in range(4):
                versions.append([])
                callers.create_task(call(versions[-1]))
            await until(lambda: min(map(len, versions)) > 10)
            server.stop()
        assert all("1" in seen for seen in versions)
        assert {version for seen in versions for version in seen} == {"1", "2"}
