"""Packing a model, serving it, swapping it, and following a shelf."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from concord.errors import NoModelError, RefusalReason, SnapshotRefused
from concord.serving.packing import Blueprint, pack_model
from concord.serving.predictor import Predictor
from concord.serving.watcher import Watcher, WatchTimes
from concord.site.ports import Snapshot
from served_models import (
    CLASSES,
    ROW,
    FragileShelf,
    build_model,
    marked_model,
    marked_snapshot,
    new_predictor,
    snapshot_of,
)

QUICK = WatchTimes(patience=0.05, first_rest=0.001, longest_rest=0.01)


def with_nan() -> nn.Module:
    model = marked_model(1.0)
    with torch.no_grad():
        model.get_parameter("bias")[1] = float("nan")
    return model


def unpacked(blob: bytes) -> nn.Module:
    return Blueprint(build_model().eval()).unpack(blob).module


def test_a_packed_model_comes_back_with_parameters_and_buffers() -> None:
    model = build_model()
    model.get_buffer("seen").fill_(41)
    state = unpacked(pack_model(model)).state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor)


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (pack_model(marked_model(1.0))[:-1], RefusalReason.CHECKSUM),
        (b"", RefusalReason.CHECKSUM),
        (pack_model(nn.Linear(4, 3)), RefusalReason.LAYOUT),
        (pack_model(nn.Linear(5, 3)), RefusalReason.LAYOUT),
        (pack_model(build_model().double()), RefusalReason.LAYOUT),
        (pack_model(with_nan()), RefusalReason.NOT_FINITE),
    ],
    ids=["torn", "empty", "a tensor missing", "another shape", "another dtype", "not finite"],
)
def test_a_blob_that_does_not_fit_is_refused(blob: bytes, reason: RefusalReason) -> None:
    with pytest.raises(SnapshotRefused) as refusal:
        unpacked(blob)
    assert refusal.value.reason is reason


class Odd(nn.Module):
    """Shares one weight between two layers, has a recurrent layer, a buffer that is not saved, and one that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.memory = nn.LSTM(4, 4)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.get_buffer("calls").add_(1)
        out: torch.Tensor = self.memory(self.second(self.first(inputs) * self.get_buffer("scale")))[0]
        return out


def test_weights_lie_in_the_blob_and_buffers_and_ties_are_as_in_the_model() -> None:
    model = Odd().eval()
    blob = pack_model(model)
    blueprint = Blueprint(Odd().eval())
    made, other = blueprint.unpack(blob).module, blueprint.unpack(blob).module
    first = ctypes.cast(ctypes.c_char_p(blob), ctypes.c_void_p).value or 0
    for parameter in made.parameters():
        assert first < parameter.data_ptr() < first + len(blob)
    assert made.first.weight is made.second.weight
    with torch.inference_mode():
        torch.testing.assert_close(made(torch.ones(3, 4)), model(torch.ones(3, 4)))
    assert (int(made.get_buffer("calls")), int(other.get_buffer("calls"))) == (1, 0)


def test_a_model_lives_as_long_as_somebody_holds_it_and_no_longer() -> None:
    predictor = new_predictor()
    held = predictor.swap(marked_snapshot(1))
    gone = weakref.ref(held.module)
    gc.disable()  # nothing may be left to the collector of cycles, which comes when it likes
    try:
        predictor.swap(marked_snapshot(2))
        assert held.predict(torch.zeros(1, 4)).outputs[0, 0] == 1.0
        del held
        assert gone() is None
    finally:
        gc.enable()


def test_nothing_is_answered_before_the_first_snapshot() -> None:
    predictor = new_predictor()
    assert predictor.served is None
    with pytest.raises(NoModelError):
        predictor.predict(torch.zeros(1, 4))


def test_a_prediction_is_that_of_the_module_and_says_where_it_comes_from() -> None:
    predictor, model = new_predictor(), build_model()
    predictor.swap(snapshot_of(model, 7))
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    prediction = predictor.predict(inputs)
    expected = model(inputs).detach()
    torch.testing.assert_close(prediction.outputs, expected)
    torch.testing.assert_close(prediction.probabilities, expected.softmax(dim=1))
    assert prediction.winners == tuple(expected.argmax(dim=1).tolist())
    assert prediction.labels == tuple(CLASSES[winner] for winner in prediction.winners)
    assert (prediction.version, prediction.round) == (7, 70)


def test_classes_that_are_told_each_by_itself_have_a_probability_each() -> None:
    predictor, model = Predictor(build_model, CLASSES, (4,), "animals", multi_label=True), build_model()
    predictor.swap(snapshot_of(model, 1))
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    prediction = predictor.predict(inputs)
    torch.testing.assert_close(prediction.probabilities, model(inputs).detach().sigmoid())
    assert prediction.winners == tuple(prediction.outputs.argmax(dim=1).tolist())


def test_a_model_without_classes_has_no_probabilities() -> None:
    predictor = Predictor(build_model, (), (4,), "regression")
    predictor.swap(snapshot_of(build_model(), 1))
    prediction = predictor.predict(torch.zeros(2, 4))
    assert (prediction.probabilities, prediction.winners, prediction.labels) == (None, (), ())
    assert prediction.outputs.shape == (2, 3)


def test_dropout_is_off_in_service() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))

    predictor = Predictor(build, CLASSES, (4,), "dropout")
    predictor.swap(snapshot_of(build(), 1))
    rows = torch.ones(64, 4)
    assert torch.equal(predictor.predict(rows).outputs, predictor.predict(rows).outputs)


def test_who_holds_the_old_model_is_answered_by_it_after_a_swap() -> None:
    predictor = new_predictor()
    old = predictor.swap(marked_snapshot(1))
    predictor.swap(marked_snapshot(2))
    assert old.predict(torch.zeros(1, 4)).outputs[0, 0] == 1.0
    assert predictor.predict(torch.zeros(1, 4)).outputs[0, 0] == 2.0
    assert predictor.state.swaps == 2


def test_the_served_model_does_not_keep_the_blob() -> None:
    assert new_predictor().swap(marked_snapshot(1)).snapshot.blob == b""


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (snapshot_of(marked_model(2.0), 2, fingerprint="beef"), RefusalReason.FINGERPRINT),
        (snapshot_of(nn.Linear(4, 2), 2), RefusalReason.LAYOUT),
        (replace(marked_snapshot(2), blob=marked_snapshot(2).blob[:100]), RefusalReason.CHECKSUM),
        (snapshot_of(with_nan(), 2), RefusalReason.NOT_FINITE),
    ],
    ids=["fingerprint", "shape", "torn", "not finite"],
)
def test_a_bad_snapshot_is_refused_and_counted_and_the_old_model_stays(
    snapshot: Snapshot, reason: RefusalReason
) -> None:
    predictor = new_predictor()
    served = predictor.swap(marked_snapshot(1))
    with pytest.raises(SnapshotRefused) as refusal:
        predictor.swap(snapshot)
    assert refusal.value.reason is reason
    assert predictor.served is served
    assert predictor.state.refused == {reason: 1}
    assert predictor.state.swaps == 1


@pytest.mark.parametrize(("classes", "input_shape"), [(CLASSES, (5,)), (CLASSES[:2], (4,))], ids=["inputs", "classes"])
def test_a_model_that_cannot_answer_the_task_is_refused_at_warm_up(
    classes: tuple[str, ...], input_shape: tuple[int, ...]
) -> None:
    predictor = Predictor(build_model, classes, input_shape, "animals")
    with pytest.raises(SnapshotRefused, match="layout"):
        predictor.swap(marked_snapshot(1))


def test_serving_leaves_the_random_numbers_of_a_trainer_beside_it_alone() -> None:
    snapshot = marked_snapshot(1)
    before = torch.get_rng_state()
    predictor = new_predictor()
    predictor.swap(snapshot)
    predictor.predict(torch.zeros(1, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_serving_works_where_numpy_is_not_installed() -> None:
    script = (
        "import sys; sys.modules['numpy'] = None\n"
        "from served_models import new_predictor, marked_snapshot\n"
        "from concord.serving import plain\n"
        "served = new_predictor().swap(marked_snapshot(3))\n"
        "question = plain.read_request(b'{\"inputs\": [1, 2, 3, 4]}', served)\n"
        "print(question.reply(served.predict(question.inputs)).body.decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"label":"cat"' in done.stdout


@asynccontextmanager
async def watching(predictor: Predictor, shelf: FragileShelf) -> AsyncIterator[Watcher]:
    watcher = Watcher(predictor, shelf, QUICK)
    task = asyncio.create_task(watcher.run())
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def serves(predictor: Predictor, version: int) -> Callable[[], bool]:
    return lambda: predictor.served is not None and predictor.served.snapshot.version == version


@pytest.mark.anyio
async def test_the_watcher_serves_what_is_there_and_then_what_comes() -> None:
    predictor, shelf = new_predictor(), FragileShelf()
    await shelf.publish(marked_snapshot(4))
    async with watching(predictor, shelf):
        await until(serves(predictor, 4))
        await shelf.publish(marked_snapshot(5))
        await until(serves(predictor, 5))
    assert predictor.state.swaps == 2


@pytest.mark.anyio
async def test_the_watcher_passes_over_a_bad_snapshot() -> None:
    predictor, shelf = new_predictor(), FragileShelf()
    async with watching(predictor, shelf):
        await shelf.publish(marked_snapshot(1))
        await until(serves(predictor, 1))
        await shelf.publish(snapshot_of(build_model(), 2, fingerprint="beef"))
        await until(lambda: predictor.state.refused[RefusalReason.FINGERPRINT] == 1)
        waits = shelf.waits
        await until(lambda: shelf.waits >= waits + 2)
        assert predictor.state.refused.total() == 1
        assert serves(predictor, 1)()
        await shelf.publish(marked_snapshot(3))
        await until(serves(predictor, 3))


@pytest.mark.anyio
async def test_the_watcher_outlives_a_dead_shelf() -> None:
    predictor, shelf = new_predictor(), FragileShelf()
    async with watching(predictor, shelf) as watcher:
        await shelf.publish(marked_snapshot(1))
        await until(serves(predictor, 1))
        await shelf.die()
        await until(lambda: watcher.state.failures >= 3)
        assert serves(predictor, 1)()
        shelf.start_over()
        await shelf.publish(marked_snapshot(2))
        await until(serves(predictor, 2))
        await until(lambda: watcher.state.failures == 0)


@pytest.mark.anyio
async def test_the_watcher_does_not_load_the_same_snapshot_twice() -> None:
    predictor, shelf = new_predictor(), FragileShelf()
    await shelf.publish(marked_snapshot(1))
    async with watching(predictor, shelf) as watcher:
        await until(serves(predictor, 1))
        await shelf.die()
        await until(lambda: watcher.state.failures > 0)
        shelf.start_over()
        await shelf.publish(marked_snapshot(1))
        await until(lambda: watcher.state.failures == 0)
        assert predictor.state.swaps == 1


@pytest.mark.anyio
async def test_the_watcher_follows_a_shelf_that_started_over() -> None:
    predictor, shelf = new_predictor(), FragileShelf()
    await shelf.publish(marked_snapshot(9))
    async with watching(predictor, shelf):
        await until(serves(predictor, 9))
        shelf.start_over()
        await shelf.publish(marked_snapshot(1))
        await until(serves(predictor, 1))
    assert predictor.state.swaps == 2


@pytest.mark.anyio
async def test_a_watcher_of_an_empty_shelf_waits_and_does_not_spin() -> None:
    shelf = FragileShelf()
    async with watching(new_predictor(), shelf):
        await until(lambda: shelf.waits == 1)
        await asyncio.sleep(QUICK.patience / 2)
        assert shelf.waits == 1


def test_the_fingerprint_is_optional() -> None:
    predictor = Predictor(build_model, CLASSES, (4,), "animals")
    predictor.swap(snapshot_of(marked_model(1.0), 1, fingerprint="any"))
    assert predictor.predict(torch.tensor([ROW])).version == 1
