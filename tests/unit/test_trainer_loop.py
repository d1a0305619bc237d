"""The trainer's loop on a real learner and real checkpoints, with a quiet network."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from concord.consensus.algorithm import EdgeTerms, LocalStep
from concord.consensus.registry import AlgorithmOptions, build_algorithm
from concord.consensus.vectors import fingerprint, not_finite
from concord.errors import CheckpointError, TaskError
from concord.learning.checkpoint import CheckpointStore
from concord.learning.objectives import LOSSES, METRICS
from concord.learning.samples import Samples
from concord.learning.steps import GradientOptions, Learner
from concord.learning.task import Task
from concord.mailbox.memory import MemoryMailbox
from concord.serving.packing import Blueprint, pack_model
from concord.serving.snapshots import MemoryShelf
from concord.site.actions import Publish
from concord.site.brain import Brain, Identity, Plan
from concord.site.edges import Edge
from concord.site.loop import Facts, Packed, Trainer
from concord.site.ports import Snapshot
from concord.site.post import Post
from concord.wire.messages import Update


class RecordingPost(Post):
    """A post that is never carried and remembers what it was handed."""

    def __init__(self) -> None:
        super().__init__("N1", MemoryMailbox(), MemoryShelf())
        self.sent: list[Update] = []
        self.statuses: list[dict[str, Any]] = []
        self.snapshots: list[Snapshot] = []

    def send(self, updates: Any) -> None:
        self.sent.extend(updates)

    def report(self, status: str) -> None:
        self.statuses.append(json.loads(status))

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)


def build_model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.25), nn.ReLU(), nn.Linear(8, 3))


TASK = Task("toy", build_model, LOSSES["cross_entropy"], {"accuracy": METRICS["accuracy"]})


def samples() -> Samples:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(60, 4, generator=generator)
    return Samples(inputs, inputs[:, :3].argmax(dim=1))


class FullStore(CheckpointStore):
    """A store on a disk that has just become full."""

    def save(self, *_: object) -> Path:
        raise CheckpointError("no space left on device")


class Site:
    """A trainer with everything it needs, on a folder for its checkpoints."""

    def __init__(
        self,
        folder: Path,
        rounds: int,
        data: Samples | None = None,
        store: CheckpointStore | None = None,
        penalty: float = 1.0,
        member: bool = True,
        join_timeout: float = 0.0,
        **plan: Any,
    ) -> None:
        self.post = RecordingPost()
        # What a real process does at its start: dropout draws from torch's own generator.
        torch.manual_seed(99)
        learner = Learner(
            TASK.new_model(1), TASK, data or samples(), GradientOptions(batch_size=8, momentum=0.5), seed=3
        )
        algorithm = build_algorithm(AlgorithmOptions(name="sm-ecl"), learner.primal, LocalStep(0.1, 4))
        self.primal = learner.primal
        self.module = learner.module
        self.store = store or CheckpointStore(folder)
        edges = {"N2": Edge(1, EdgeTerms(penalty=penalty, averaging=1.0))}
        self.brain = Brain(
            Identity("federation", "N1", fingerprint(learner.module)),
            Plan(local_steps=4, rounds=rounds, **plan),
            algorithm,
            learner.gradient,
            edges,
        )
        self.trainer = Trainer(
            self.brain,
            learner,
            self.post,
            self.store,
            samples(),
            Facts("toy", "accuracy", rounds, {"a": 20, "b": 20, "c": 20}),
            edges if member else None,
            lambda: Packed(pack_model(learner.module)),
            join_timeout=join_timeout,
        )

    def train(self) -> Tensor:
        self.trainer.train(threading.Event())
        return self.primal.clone()


def test_a_resumed_trainer_goes_on_bit_identically(tmp_path: Path) -> None:
    uninterrupted = Site(tmp_path / "a", rounds=12).train()
    Site(tmp_path / "b", rounds=5).train()
    resumed = Site(tmp_path / "b", rounds=12)
    assert torch.equal(resumed.train(), uninterrupted)
    first, last = resumed.post.sent[0].header, resumed.post.sent[-1].header
    assert (first.stamp.incarnation, first.round, last.round) == (2, 6, 12)


@pytest.mark.parametrize("look", [1, 2])
def test_a_resumed_trainer_takes_in_news_whenever_it_finds_it(look: int, tmp_path: Path) -> None:
    """News at its very first look does not make it a site that begins where its neighbours are."""
    Site(tmp_path / "a", rounds=5).train()
    site, other = Site(tmp_path / "a", rounds=6), Site(tmp_path / "b", rounds=1)
    news = update_to_n1(other.brain, 0.25, 7)
    looks: list[Tensor] = []

    class Full(RecordingPost):
        """Has news when the trainer looks for the first or the second time: both are before its first step."""

        def take(self) -> list[Update]:
            looks.append(site.primal.clone())
            return [news] if len(looks) == look else []

    site.trainer._post = Full()
    checkpoint = site.store.load_newest()
    assert checkpoint is not None
    site.train()
    assert all(torch.equal(primal, checkpoint.tensors["primal"]) for primal in looks[:2])
    assert site.brain.progress(0.0).edges["N2"].received == 1


def test_a_finished_trainer_goes_on_above_a_life_that_is_remembered(tmp_path: Path) -> None:
    site = Site(tmp_path, rounds=1)
    stop = threading.Event()

    class Remembered(RecordingPost):
        """A neighbour remembers a ninth life once the site has finished."""

        def send(self, updates: Any) -> None:
            super().send(updates)
            if self.floor:
                stop.set()
            self.floor = 9

        def drain(self, timeout: float) -> bool:
            return True

    site.trainer._post = post = Remembered()
    site.trainer.run(stop)
    assert [update.header.stamp.incarnation for update in post.sent] == [1, 10]
    assert torch.equal(post.sent[0].parts["message"], post.sent[1].parts["message"])


def test_terms_that_a_new_job_changed_hold_after_a_restart(tmp_path: Path) -> None:
    Site(tmp_path, rounds=3).train()
    changed = Site(tmp_path, rounds=4, penalty=7.0)
    changed.train()
    assert changed.post.sent[-1].header.penalty == 7.0
    assert changed.brain.table().edges["N2"].terms.penalty == 7.0


def test_a_checkpoint_that_was_torn_costs_the_rounds_since_the_one_before(tmp_path: Path) -> None:
    uninterrupted = Site(tmp_path / "a", rounds=9).train()
    Site(tmp_path / "b", rounds=3).train()
    Site(tmp_path / "b", rounds=6).train()
    newest = sorted((tmp_path / "b").glob("checkpoint-*"))[-1]
    newest.write_bytes(newest.read_bytes()[:-7])
    assert torch.equal(Site(tmp_path / "b", rounds=9).train(), uninterrupted)


def test_a_stopped_trainer_leaves_a_checkpoint(tmp_path: Path) -> None:
    site = Site(tmp_path, rounds=10**9)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    site.trainer.train(stop)
    checkpoint = site.store.load_newest()
    assert checkpoint is not None
    assert torch.equal(checkpoint.tensors["primal"], site.primal)


def test_the_last_snapshot_is_the_final_model_with_its_metrics(tmp_path: Path) -> None:
    site = Site(tmp_path, rounds=20)
    site.train()
    snapshot = site.post.snapshots[-1]
    again = Blueprint(build_model()).unpack(snapshot.blob).module
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), site.module.parameters(), strict=True))
    assert (snapshot.round, snapshot.step) == (20, 80)
    assert snapshot.metrics["accuracy"] > 0.5
    assert site.post.statuses[-1]["progress"]["phase"] == "finished"
    assert site.post.statuses[-1]["classes"] == {"a": 20, "b": 20, "c": 20}


def update_to_n1(brain: Brain, value: float, round_: int) -> Update:
    """What N2 sends N1 in a round of its own: a model of equal numbers."""
    brain.algorithm.local_step(torch.zeros_like(brain.algorithm.primal))
    (update,) = [update for action in brain.greet() if isinstance(action, Publish) for update in action.updates]
    header = replace(update.header, sender="N2", receiver="N1", round=round_)
    return Update(header, {"message": torch.full_like(update.parts["message"], value)})


def test_a_new_site_waits_for_its_neighbours_and_begins_where_they_are(tmp_path: Path) -> None:
    site, other = Site(tmp_path / "a", rounds=1, join_timeout=60.0), Site(tmp_path / "b", rounds=1)
    phases: list[str] = []

    class Answering(RecordingPost):
        """Brings the neighbour's update once the site has greeted it."""

        def take(self) -> list[Update]:
            phases.append(json.loads(site.trainer.status).get("progress", {}).get("phase", ""))
            return [update_to_n1(other.brain, 0.25, 7)] if self.sent else []

    post = Answering()
    site.trainer._post = post
    before = site.primal.clone()
    site.trainer.train(threading.Event())
    assert post.sent[0].header.round == 0, "a greeting"
    assert "joining" in phases
    assert torch.dist(site.primal, torch.full_like(before, 0.25)) < 0.1 * torch.dist(before, site.primal)


def test_a_site_that_nobody_answers_begins_after_a_time(tmp_path: Path) -> None:
    site = Site(tmp_path, rounds=1, join_timeout=0.05)
    site.train()
    assert site.trainer.finished


def test_a_site_that_is_no_member_waits_until_it_is_one(tmp_path: Path) -> None:
    site = Site(tmp_path, rounds=1, member=False)
    thread = threading.Thread(target=site.train)
    thread.start()
    while not site.post.statuses:
        assert thread.is_alive()
    assert site.post.statuses[0]["progress"]["phase"] == "joining"
    assert site.post.statuses[-1]["progress"]["step"] == 0
    site.trainer.change_edges({"N3": Edge(1, EdgeTerms(penalty=1.0, averaging=1.0))})
    thread.join(30)
    assert site.trainer.finished
    assert {update.header.receiver for update in site.post.sent} == {"N3"}


def test_a_site_that_is_a_member_no_more_stands_still_and_comes_back_where_its_neighbours_are(tmp_path: Path) -> None:
    site, other = Site(tmp_path / "a", rounds=3, join_timeout=60.0), Site(tmp_path / "b", rounds=1)
    edges = {"N2": Edge(1, EdgeTerms(penalty=1.0, averaging=1.0))}
    left_at: list[int] = []

    class Leaving(RecordingPost):
        """Takes the membership away in the second round, gives it back, and brings the neighbour's update."""

        def take(self) -> list[Update]:
            step = site.brain.counters.step
            if step == 5 and not left_at:
                site.trainer.change_edges(None)
                left_at.append(step + 1)  # it is followed before the next step
            elif left_at and step > left_at[0]:
                return []
            return [update_to_n1(other.brain, 0.25, 7)]

        def report(self, status: str) -> None:
            super().report(status)
            if self.statuses[-1]["progress"]["phase"] == "joining" and left_at:
                site.trainer.change_edges(edges)

    site.trainer._post = post = Leaving()
    site.train()
    assert site.trainer.finished
    away = [status["progress"] for status in post.statuses if status["progress"]["phase"] == "joining"]
    assert away[0]["edges"] == {}
    assert {progress["step"] for progress in away} == set(left_at), "it stands still"
    assert torch.dist(site.primal, torch.full_like(site.primal, 0.25)) < 1.0


def broken_samples() -> Samples:
    good = samples()
    return Samples(good.inputs * float("nan"), good.targets)


def test_gradients_that_are_never_finite_end_with_advice_and_an_untouched_model(tmp_path: Path) -> None:
    site = Site(tmp_path, rounds=10, data=broken_samples(), max_bad_steps=5)
    before = site.primal.clone()
    with pytest.raises(TaskError, match=r"no finite gradient.*smaller learning rate"):
        site.train()
    assert torch.equal(site.primal, before)


def test_divergence_goes_back_to_the_last_good_checkpoint(tmp_path: Path) -> None:
    Site(tmp_path, rounds=5).train()
    site = Site(tmp_path, rounds=10, data=broken_samples(), max_bad_steps=5)
    with pytest.raises(TaskError, match="going back to a checkpoint does not help"):
        site.train()
    checkpoint = site.store.load_newest()
    assert checkpoint is not None
    assert torch.equal(site.primal, checkpoint.tensors["primal"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_is_never_a_checkpoint(
    tmp_path: Path, bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    Site(tmp_path, rounds=5).train()
    site = Site(tmp_path, rounds=10, max_bad_steps=5)
    stop = threading.Event()

    class Ending(RecordingPost):
        """Spoils the model, and stops the trainer, in the middle of what would lead to a rollback."""

        def take(self) -> list[Update]:
            site.primal[0] = bad
            if site.brain.counters.bad_steps == 3:
                stop.set()
            return super().take()

    site.trainer._post = Ending()
    site.trainer.train(stop)
    assert "primal holds NaN or infinity" in caplog.text
    checkpoint = site.store.load_newest()
    assert checkpoint is not None
    assert (checkpoint.number, not_finite(checkpoint.tensors)) == (20, [])


def test_a_checkpoint_that_leads_to_nothing_finite_again_is_passed_over(tmp_path: Path) -> None:
    Site(tmp_path, rounds=5).train()
    first = Site(tmp_path, rounds=5).store.load_newest()
    assert first is not None
    diverged = {name: tensor * 1e30 if name == "primal" else tensor for name, tensor in first.tensors.items()}
    CheckpointStore(tmp_path).save(first.number + 1, diverged, first.metadata)
    site = Site(tmp_path, rounds=9, max_bad_steps=5)

    class Watching(RecordingPost):
        """Makes every step bad as long as the model is the diverged one."""

        def take(self) -> list[Update]:
            if site.primal.abs().max() > 1e20:
                site.primal.mul_(1e30)
            return super().take()

    site.trainer._post = Watching()
    site.train()
    assert site.trainer.finished
    assert site.brain.counters.rollbacks == 2
    assert site.primal.abs().max() < 100


def test_a_full_disk_while_training_keeps_the_previous_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Site(tmp_path, rounds=5).train()
    kept = sorted(tmp_path.glob("checkpoint-*"))
    Site(tmp_path, rounds=10, store=FullStore(tmp_path)).train()
    assert "the previous one is kept" in caplog.text
    assert sorted(tmp_path.glob("checkpoint-*")) == kept
