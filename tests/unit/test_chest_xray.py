"""Chest X-rays: read from a small file made here, divided and dealt out by patient, measured as scikit-learn does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from concord.cli.data import class_counts, held_out_sample
from concord.errors import TaskError
from concord.job import parse_job
from concord.learning.objectives import METRICS, auc_of_label, label_auc
from concord.learning.partition import SplitOptions
from concord.learning.samples import Pool, Samples
from concord.learning.steps import evaluate, rehearse
from concord.learning.task import Task, TaskSpec, deal, describe, resolve_task
from concord.learning.tasks import chest_xray
from concord.learning.tasks.chest_xray import CLASSES, load_pool

SITES = tuple(f"N{number}" for number in range(1, 9))
SKEWED = SplitOptions(kind="dirichlet", alpha=0.3, minimum=3)


def arrays(patients: int = 120, seed: int = 0) -> dict[str, np.ndarray]:
    """One to five pictures per patient; what a patient has shows in all of them, rare findings in two patients each."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(patients), rng.integers(1, 6, patients))
    chance = np.array([0.2, 0.15, 0.1, 0.1, *[0.03] * 10])
    of_patient = rng.random((patients, 14)) < chance
    of_patient[: patients // 2] = False
    for finding in range(14):
        of_patient[patients - 2 * finding - 2 : patients - 2 * finding, finding] = True
    return {
        "images": rng.integers(0, 256, (len(owners), 64, 64), dtype=np.uint8),
        "labels": of_patient[owners].astype(np.uint8),
        "names": np.array([f"{owner:08d}_{number:03d}.png" for number, owner in enumerate(owners)]),
        "classes": np.array(CLASSES),
    }


def write(path: Path, **changes: np.ndarray | None) -> str:
    np.savez(path, **{name: array for name, array in (arrays() | changes).items() if array is not None})
    return str(path)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return write(tmp_path / "x.npz")


@pytest.fixture
def task(path: str) -> Task:
    return resolve_task(TaskSpec(name="chest-xray", options={"path": path, "width": 4}))


def test_a_fifth_of_every_finding_is_for_testing_and_no_patient_is_on_both_sides(path: str) -> None:
    made, pool = arrays(), load_pool(path)
    assert pool.groups is not None
    trained = {bytes(image.numpy()) for image in pool.train.inputs}
    owners = [name.partition("_")[0] for name in made["names"]]
    sides = [bytes(image) in trained for image in made["images"]]
    assert not {owner for owner, side in zip(owners, sides, strict=True) if side} & {
        owner for owner, side in zip(owners, sides, strict=True) if not side
    }
    assert len(pool.train) + len(pool.test) == len(owners)
    assert 0.15 < len(pool.test) / len(owners) < 0.25
    for part in (pool.train, pool.test):
        assert int(part.targets.sum(dim=0).min()) >= 1
        assert int((part.targets.sum(dim=1) == 0).sum()) >= 1


def test_the_division_is_always_the_same_and_leaves_one_patient_for_training(path: str) -> None:
    first, again = load_pool(path), load_pool(path)
    assert torch.equal(first.test.inputs, again.test.inputs)
    labels = torch.zeros(6, 14)
    labels[0, 3] = labels[1, 4] = labels[2, 4] = 1
    chosen = chest_xray.patients_for_test(labels, torch.arange(6))
    assert 0 not in chosen
    assert len(chosen & {1, 2}) == 1


def test_hospitals_hold_whole_patients_and_differ_in_number_and_in_kind(task: Task) -> None:
    pool = task.pool()
    assert pool.groups is not None
    shares = deal(pool, SITES, SKEWED)
    owners = [set(pool.groups[indices].tolist()) for indices in shares.values()]
    assert sum(map(len, owners)) == len(set.union(*owners)) == len(pool.groups.unique())
    assert sorted(torch.cat(list(shares.values())).tolist()) == list(range(len(pool.train)))
    assert min(map(len, owners)) >= 3
    rows = describe(task, SITES, SKEWED)
    assert max(row.total for row in rows) > 3 * min(row.total for row in rows)
    shares_ill = [1 - row.unlabelled / row.total for row in rows]
    assert max(shares_ill) - min(shares_ill) > 0.3


def test_the_seed_of_the_split_says_who_gets_whom(task: Task) -> None:
    pool = task.pool()
    first, same, other = (deal(pool, SITES, SplitOptions(kind="dirichlet", seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[site], same[site]) for site in SITES)
    assert any(not torch.equal(first[site], other[site]) for site in SITES)


def test_every_site_validates_with_the_common_test_set(task: Task) -> None:
    data = task.site_data("N3", SITES, SKEWED)
    assert torch.equal(data.validation.inputs, task.pool().test.inputs)
    assert torch.equal(data.train.targets, task.pool().train.select(deal(task.pool(), SITES, SKEWED)["N3"]).targets)


def test_validate_and_predict_have_the_findings_by_name(path: str) -> None:
    job = parse_job(
        "name: chest\ntask: chest-xray\nsites: 8\nsplit: {kind: dirichlet, alpha: 0.3, minimum: 3}\n",
        [f"task.options.path={path}"],
    )
    counts = class_counts(job)
    pool = load_pool(path)
    assert sum(held.samples for held in counts.values()) == len(pool.train)
    for name, total in zip(CLASSES, pool.train.targets.sum(dim=0).tolist(), strict=True):
        assert sum(held.classes.get(name, 0) for held in counts.values()) == total
    ill = int(pool.test.targets.sum(dim=1).argmax())
    assert set(held_out_sample(job, ill)[1].split(", ")) <= set(CLASSES)
    assert held_out_sample(job, int(pool.test.targets.sum(dim=1).argmin()))[1] == "(none)"


def test_the_model_takes_bytes_and_floats_alike_and_has_no_batch_norm(task: Task) -> None:
    pool, model = task.pool(), task.new_model(0).eval()
    rehearse(task, pool.train)
    few = pool.test.inputs[:3]
    assert few.shape[1:] == task.input_shape == (1, 64, 64)
    assert torch.equal(model(few), model(few.float()))
    assert model(few).shape == (3, 14)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def test_a_brighter_or_flatter_picture_is_the_same_to_the_model(task: Task) -> None:
    model, few = task.new_model(0).eval(), task.pool().test.inputs[:3].float()
    assert torch.allclose(model(few), model(0.5 * few + 40), atol=0.05)
    assert not torch.allclose(model(few), model(few.flip(3)), atol=0.05)


def test_metrics_are_the_mean_and_then_each_finding(task: Task) -> None:
    pool = task.pool()
    found = evaluate(task.new_model(0), task, pool.test).metrics
    assert list(found) == ["auc", *(f"auc_{name}" for name in CLASSES)]
    assert found["auc"] == pytest.approx(sum(list(found.values())[1:]) / 14)


def test_a_positive_weight_makes_findings_count_more(path: str) -> None:
    plain, weighted = (
        resolve_task(TaskSpec(name="chest-xray", options={"path": path, "positive_weight": weight})).loss
        for weight in (1, 5)
    )
    outputs = torch.zeros(2, 14)
    assert float(weighted(outputs, torch.ones(2, 14))) == pytest.approx(5 * float(plain(outputs, torch.ones(2, 14))))
    assert float(weighted(outputs, torch.zeros(2, 14))) == float(plain(outputs, torch.zeros(2, 14)))


@pytest.mark.parametrize("distinct", [2, 5, 1000])
def test_the_area_is_that_of_scikit_learn_with_ties_and_without(distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    scores = rng.integers(0, distinct, (80, 6)).astype(np.float32)
    truth = (rng.random((80, 6)) < [0.5, 0.1, 0.9, 0.3, 0.02, 0.5]).astype(np.float32)
    truth[0], truth[1] = 0, 1
    expected = [roc_auc_score(truth[:, label], scores[:, label]) for label in range(6)]
    outputs, targets = torch.from_numpy(scores), torch.from_numpy(truth)
    assert label_auc(outputs, targets).tolist() == pytest.approx(expected)
    assert float(METRICS["auc"](outputs, targets)) == pytest.approx(np.mean(expected))
    assert float(auc_of_label(outputs, targets, 3)) == pytest.approx(expected[3])


def test_labels_of_one_kind_only_are_left_out_and_nothing_at_all_is_chance() -> None:
    outputs = torch.tensor([[0.1, 0.9, 0.3], [0.2, 0.1, 0.2]])
    targets = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    assert float(METRICS["auc"](outputs, targets)) == 1.0
    assert float(METRICS["auc"](outputs, torch.zeros(2, 3))) == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, r"x\.npz lacks the array .*images"),
        ({"names": None}, r"x\.npz lacks the array .*names.*; it must have names, classes"),
        (
            {"images": np.zeros((3, 32, 32), np.uint8)},
            r"images are uint8 \(3, 32, 32\); they must be uint8 \(n, 64, 64\)",
        ),
        ({"images": np.zeros((3, 64, 64))}, r"images are float64"),
        ({"labels": np.zeros((3, 14), np.uint8)}, r"labels are uint8 \(3, 14\); they must be 0 or 1, \(\d+, 14\)"),
        ({"labels": 2 + arrays()["labels"]}, r"labels are uint8 .*; they must be 0 or 1"),
        ({"names": np.array(["1_0.png"])}, r"1 names do not match \d+ images"),
        ({"names": np.arange(3)}, r"cannot be read as \.npz of texts: int64 of shape \(3,\)"),
        ({"classes": np.array(CLASSES[::-1])}, r"classes are Hernia, .*; they must be Atelectasis"),
        ({"names": np.array([{"a": 1}], dtype=object)}, r"cannot be read as \.npz of texts"),
    ],
)
def test_a_file_of_another_form_is_told_with_what_would_be_right(
    tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        load_pool(write(tmp_path / "x.npz", **changes))


def test_without_a_file_the_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task.options.path: missing; .* images, labels, names and classes"):
        resolve_task(TaskSpec(name="chest-xray")).pool()
    with pytest.raises(TaskError, match=r"nowhere\.npz cannot be read"):
        load_pool(str(tmp_path / "nowhere.npz"))
    with pytest.raises(TaskError, match=r"task\.options\.width: 6 must be a multiple of 4"):
        resolve_task(TaskSpec(name="chest-xray", options={"width": 6}))


def test_groups_must_match_the_samples() -> None:
    samples = Samples(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(TaskError, match=r"groups \(2,\) do not match 3 training samples"):
        Pool(samples, samples, torch.zeros(2))
