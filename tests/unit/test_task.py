"""Tasks by name and by reference; errors say which key, what was found and what is right."""

import textwrap
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import nn

from concord.errors import TaskError
from concord.learning.partition import SplitOptions
from concord.learning.samples import Pool, Samples
from concord.learning.steps import rehearse
from concord.learning.task import Task, TaskSpec, describe, resolve_task
from concord.learning.tasks import BUILT_IN

SITES = tuple(f"N{number}" for number in range(1, 9))
_serial = count()

MODEL = """
from torch import nn

def build(hidden=3):
    return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 2))
"""
DATA = """
import torch

def load():
    inputs = torch.arange(80.0).view(20, 4)
    targets = torch.arange(20) % 2
    return (inputs[:16], targets[:16]), (inputs[16:], targets[16:])
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module into the current directory and gives its name, never the same twice."""
    monkeypatch.chdir(tmp_path)

    def module(source: str) -> str:
        name = f"own_task_{next(_serial)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return name

    return module


def own(write: Write, data: str = DATA, model: str = MODEL, **others: object) -> Task:
    spec = TaskSpec(model=f"{write(model)}:build", data=f"{write(data)}:load", **others)  # type: ignore[arg-type]
    return resolve_task(spec)


def test_digits_is_as_the_rest_of_the_project_expects_it() -> None:
    task = resolve_task(TaskSpec(name="digits"))
    pool = task.pool()
    assert (task.name, task.headline, task.natural_sites) == ("digits", "accuracy", False)
    assert task.classes == tuple("0123456789")
    assert sum(parameter.numel() for parameter in task.new_model(0).parameters()) == 9610
    assert (len(pool.train), len(pool.test)) == (1442, 355)
    assert pool.train.inputs.shape[1:] == task.input_shape == (64,)
    assert pool.train.inputs.dtype == torch.float32
    assert float(pool.train.inputs.min()) == 0.0
    assert float(pool.train.inputs.max()) == 1.0
    for part, share in ((pool.train, 0.8), (pool.test, 0.2)):
        counts = part.targets.bincount(minlength=10) / (share * 1797)
        assert float(counts.min()) > 0.09
        assert float(counts.max()) < 0.11


def test_training_and_test_digits_do_not_overlap() -> None:
    pool = resolve_task(TaskSpec(name="digits")).pool()
    train = {tuple(row) for row in pool.train.inputs.tolist()}
    assert not any(tuple(row) in train for row in pool.test.inputs.tolist())


@pytest.mark.parametrize("options", [{"model": "logistic"}, {"model": "cnn"}, {"model": "mlp", "hidden": 7}])
def test_every_digits_model_fits_its_data(options: dict[str, object]) -> None:
    task = resolve_task(TaskSpec(name="digits", options=options))
    rehearse(task, task.pool().train)
    assert task.new_model(0)(task.pool().test.inputs[:3]).shape == (3, 10)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fashion-mnist", {"model": "cnn"}),
        ("fashion-mnist", {"model": "lenet5"}),
        ("fashion-mnist", {"model": "mlp", "hidden": 5}),
        ("cifar10", {"model": "cnn", "width": 8}),
        ("cifar10", {"model": "lenet5"}),
    ],
)
def test_every_image_model_takes_bytes_and_floats_alike(name: str, options: dict[str, object]) -> None:
    task = resolve_task(TaskSpec(name=name, options=options))
    images = torch.randint(0, 256, (4, *task.input_shape), dtype=torch.uint8)
    rehearse(task, Samples(images, torch.tensor([0, 1, 2, 9])))
    model = task.new_model(0).eval()
    assert torch.equal(model(images), model(images.float()))
    assert model(images).shape == (4, len(task.classes))


def test_no_built_in_model_has_a_batch_norm() -> None:
    for name in BUILT_IN:
        for module in resolve_task(TaskSpec(name=name)).new_model(0).modules():
            assert not isinstance(module, nn.modules.batchnorm._BatchNorm)


def test_a_model_depends_on_its_seed_alone() -> None:
    task = resolve_task(TaskSpec(name="digits"))
    before = torch.get_rng_state()
    first, same, other = (task.new_model(seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_sites_share_the_pool_and_its_test_set() -> None:
    task = resolve_task(TaskSpec(name="digits"))
    parts = [task.site_data(site, SITES, SplitOptions(seed=3)) for site in SITES]
    assert sum(len(part.train) for part in parts) == 1442
    assert {len(part.validation) for part in parts} == {355}
    rows = describe(task, SITES, SplitOptions(seed=3))
    for part, row in zip(parts, rows, strict=True):
        assert tuple(part.train.targets.bincount(minlength=10).tolist()) == row.counts
        assert len(row.held) in (2, 3)


def test_a_site_that_is_not_one_of_them_is_named() -> None:
    with pytest.raises(TaskError, match="unknown site 'N9'"):
        resolve_task(TaskSpec(name="digits")).site_data("N9", SITES)


def test_own_model_and_data(write: Write) -> None:
    task = own(write, options={"hidden": 5, "classes": ["even", "odd"], "input_shape": [4]})
    pool = task.pool()
    rehearse(task, pool.train)
    assert (len(pool.train), len(pool.test)) == (16, 4)
    assert task.new_model(0)[0].out_features == 5
    assert (task.classes, task.input_shape) == (("even", "odd"), (4,))
    assert [row.total for row in describe(task, ("a", "b"), SplitOptions(kind="iid"))] == [8, 8]


def test_own_data_by_site(write: Write) -> None:
    task = own(
        write,
        """
        import torch
        from concord.learning.task import Samples, SiteData

        def load(site, sites):
            count = 10 * (1 + sites.index(site))
            samples = Samples(torch.ones(count, 4), torch.arange(count) % 2)
            return {0: samples, 1: (samples, samples), 2: SiteData(samples, samples)}[sites.index(site)]
        """,
    )
    sites = ("a", "b", "c")
    assert task.natural_sites
    parts = [task.site_data(site, sites) for site in sites]
    assert [(len(part.train), len(part.validation)) for part in parts] == [(8, 2), (20, 20), (30, 30)]
    pool = task.pool(sites)
    assert (len(pool.train), len(pool.test)) == (58, 52)
    assert [row.total for row in describe(task, sites)] == [8, 20, 30]
    with pytest.raises(TaskError, match="name the sites"):
        task.pool()


def test_two_parameters_with_defaults_do_not_make_data_by_site(write: Write) -> None:
    task = own(write, DATA.replace("load()", "load(root='data', download=False)"), options={"root": "elsewhere"})
    assert not task.natural_sites
    assert len(task.pool().train) == 16


def test_a_site_without_data_is_named(write: Write) -> None:
    task = own(
        write,
        """
        import torch

        def load(site, sites):
            count = 0 if site == "b" else 6
            return torch.ones(count, 4), torch.zeros(count, dtype=torch.int64)
        """,
    )
    task.site_data("a", ("a", "b"))
    with pytest.raises(TaskError, match="site 'b' has no data to train on"):
        task.site_data("b", ("a", "b"))


def test_own_loss_and_metric(write: Write) -> None:
    name = write("""
        def absolute(outputs, targets):
            return (outputs[:, 0] - targets).abs().mean()

        def within_one(outputs, targets):
            return float(((outputs[:, 0] - targets).abs() < 1).float().mean())
    """)
    task = own(write, loss=f"{name}:absolute", metric=f"{name}:within_one")
    outputs, targets = torch.tensor([[0.0], [3.0]]), torch.tensor([1, 3])
    assert float(task.loss(outputs, targets)) == 0.5
    assert task.headline == "within_one"
    assert task.metrics["within_one"](outputs, targets) == 0.5


def test_a_named_loss_and_metric_for_a_built_in_task() -> None:
    task = resolve_task(TaskSpec(name="digits", loss="mean_squared_error", metric="label_accuracy"))
    assert task.loss is nn.functional.mse_loss
    assert task.headline == "label_accuracy"


def test_a_loss_of_single_labels_makes_a_task_multi_label() -> None:
    losses = (None, "cross_entropy", "binary_cross_entropy")
    assert [resolve_task(TaskSpec(name="digits", loss=loss)).multi_label for loss in losses] == [False, False, True]
    assert resolve_task(TaskSpec(name="chest-xray")).multi_label


def test_an_own_model_on_built_in_data(write: Write) -> None:
    name = write("from torch import nn\ndef build():\n    return nn.Linear(64, 10)\n")
    task = resolve_task(TaskSpec(name="digits", model=f"{name}:build"))
    rehearse(task, task.pool().train)
    assert isinstance(task.new_model(0), nn.Linear)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TaskSpec(name="digit"), "task.name: unknown task 'digit'; did you mean 'digits'"),
        (TaskSpec(), "task.model: missing; name a built-in task"),
        (TaskSpec(model="torch.nn:ReLU"), "task.data: missing"),
        (TaskSpec(name="digits", data="a:b"), "task.data: a built-in task has its own data"),
        (TaskSpec(name="digits", model="nothing"), "task.model: 'nothing' must be module:function"),
        (TaskSpec(name="digits", model="no_such_module:f"), "cannot import no_such_module: it is neither"),
        (TaskSpec(name="digits", model="torch.nn:ReLu"), "torch.nn has no 'ReLu'; did you mean 'ReLU'"),
        (TaskSpec(name="digits", model="torch:__version__"), "not a function"),
        (TaskSpec(name="digits", loss="cross_entropie"), "task.loss: .* did you mean 'cross_entropy'"),
        (TaskSpec(name="digits", metric="precision"), "task.metric: unknown metric 'precision'"),
        (TaskSpec(name="digits", options={"hiden": 3}), "task.options: .*'hiden'; did you mean 'hidden'"),
        (TaskSpec(name="digits", options={"hidden": 0}), "task.options.hidden: 0 must be a whole number"),
        (TaskSpec(name="digits", options={"hidden": True}), "task.options.hidden: True"),
        (TaskSpec(name="digits", options={"model": "rnn"}), "task.options.model: 'rnn' must be one of mlp"),
        (TaskSpec(name="cifar10", options={"width": 6}), "task.options.width: 6 must be a multiple of 4"),
        (TaskSpec(name="cifar10", options={"path": 3}), "task.options.path: 3 must be a text"),
    ],
)
def test_a_wrong_key_is_named_with_what_would_be_right(spec: TaskSpec, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        resolve_task(spec)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def load(): return 3", "returned a int; it must return a pair"),
        ("import torch\ndef load(): return torch.ones(2), torch.ones(2)", "it must return a pair"),
        ("def load(): return (1, 2), (3, 4)", "train must be Samples or a pair .* not a tuple of 2"),
        (
            "import torch\ndef load(): return (torch.ones(2), torch.ones(3)), None",
            "2 inputs do not match 3 targets",
        ),
        ("import torch\ndef load(): return (torch.ones(2), torch.ones(2)), None", "test must be .* not None"),
        ("def load(): return {}['x']", "task.data: .* failed: KeyError: 'x'"),
    ],
)
def test_a_wrong_return_of_the_data_function_is_described(write: Write, source: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        own(write, source).pool()


def test_a_data_function_with_a_wrong_number_of_parameters_is_refused(write: Write) -> None:
    with pytest.raises(TaskError, match=r"takes \(path\); it must take nothing, or \(site, sites\)"):
        own(write, "def load(path): ...")


def test_a_wrong_return_of_the_other_functions_is_described(write: Write) -> None:
    with pytest.raises(TaskError, match=r"task.model: .* returned None; it must return a torch.nn.Module"):
        own(write, model="def build(): ...").new_model(0)
    name = write("def loss(outputs, targets): return outputs\ndef metric(outputs, targets): return 'good'")
    task = own(write, loss=f"{name}:loss", metric=f"{name}:metric")
    with pytest.raises(TaskError, match=r"task.loss: .* a tensor of shape \(2,\); it must .* scalar"):
        task.loss(torch.ones(2), torch.ones(2))
    with pytest.raises(TaskError, match=r"task.metric: .* returned a str; it must return one number"):
        task.metrics["metric"](torch.ones(2), torch.ones(2))


def test_an_option_nobody_takes_names_the_nearest(write: Write) -> None:
    with pytest.raises(TaskError, match="unknown option 'hiden'; did you mean 'hidden'"):
        own(write, options={"hiden": 3})


def test_a_module_that_fails_or_needs_another_says_so(write: Write) -> None:
    with pytest.raises(TaskError, match=r"cannot import own_task_.*: ZeroDivisionError"):
        own(write, "1 / 0")
    with pytest.raises(TaskError, match="no_such_package, which it needs, is neither installed nor in"):
        own(write, "import no_such_package")


def test_the_current_directory_is_importable_while_a_task_is_resolved_only(write: Write) -> None:
    import sys

    before = list(sys.path)
    own(write)
    assert sys.path == before


def test_a_table_needs_classes() -> None:
    samples = Samples(torch.ones(4, 2), torch.full((4, 3), 0.5))
    task = Task(
        "labels",
        lambda: nn.Linear(2, 3),
        nn.functional.mse_loss,
        {},
        load_pool=lambda: Pool(samples, samples),
    )
    with pytest.raises(TaskError, match=r"task 'labels' cannot be described: .* one integer class per sample"):
        describe(task, ("a", "b"), SplitOptions(kind="iid"))
