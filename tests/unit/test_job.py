"""The job file: what it says, how it is changed from outside, and how each mistake in it is told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import ValidationError

from concord.consensus.compression import compression_names
from concord.consensus.graph import topology_kinds
from concord.consensus.registry import AlgorithmOptions, algorithm_names, server_algorithm_names
from concord.errors import JobError
from concord.job import Job, JobFileError, load_job, names, parse_job
from concord.learning.objectives import LOSSES, METRICS
from concord.learning.partition import SPLIT_KINDS, SplitOptions
from concord.learning.task import TaskSpec
from concord.learning.tasks import BUILT_IN

MINIMAL = "name: digits\ntask: digits\nsites: 4\n"
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml"))


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        parse_job(text, overrides, source="job.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_a_minimal_job_has_sensible_values_for_the_rest() -> None:
    job = parse_job(MINIMAL)
    assert job.site_names == ("N1", "N2", "N3", "N4")
    assert (job.algorithm.name, job.topology.kind, job.split.kind) == ("sm-ecl", "ring", "classes-per-site")
    assert (job.training.rounds, job.training.local_steps, job.training.seconds) == (300, 8, None)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name + "/" + path.name)
def test_every_example_is_valid(path: Path) -> None:
    job = load_job(path)
    assert job.topology_graph().sites == job.site_names


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


def test_sites_may_be_a_list_or_a_mapping_with_overrides() -> None:
    listed = parse_job("name: a\ntask: digits\nsites: [east, west]\n")
    mapped = parse_job("name: a\ntask: digits\nsites:\n  east:\n  west: {learning_rate: 0.5, reach: inbound}\n")
    assert listed.site_names == mapped.site_names == ("east", "west")
    assert listed.site("west").learning_rate == listed.training.learning_rate
    assert (mapped.site("west").learning_rate, mapped.site("west").reach) == (0.5, "inbound")
    assert mapped.site("east").index == 0


def test_a_job_does_not_change() -> None:
    job = parse_job(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        job.training.rounds = 1  # type: ignore[misc]


def test_the_digest_is_of_what_is_said_not_of_how() -> None:
    one = parse_job(MINIMAL)
    other = parse_job("sites: [N1, N2, N3, N4]\ntask: {name: digits}  # the same\nname: digits\n")
    assert one.digest() == other.digest()
    assert one.digest() != parse_job(MINIMAL, ["training.seed=1"]).digest()
    assert one.digest() != parse_job("name: digits\ntask: digits\nsites: [N2, N1, N3, N4]\n").digest()


def test_scalars_follow_yaml_1_2() -> None:
    job = parse_job("name: a\ntask: digits\nsites: [no, on, y]\ntraining: {learning_rate: 1e-3}\n")
    assert job.site_names == ("no", "on", "y")
    assert job.training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("training.rounds=50", ("training", "rounds"), 50),
        ("training.rounds=null", ("training", "rounds"), None),
        ("training.learning_rate=1e-2", ("training", "learning_rate"), 0.01),
        ("algorithm=gossip", ("algorithm", "name"), "gossip"),
        ("algorithm.averaging=0.5", ("algorithm", "averaging"), 0.5),
        ("topology={kind: random-regular, degree: 3}", ("topology", "degree"), 3),
        ("split.classes.1=5", ("split", "classes"), (2, 5)),
        ("checkpoint.keep=1", ("checkpoint", "keep"), 1),
    ],
)
def test_an_override_changes_one_value(override: str, key: tuple[str, str], expected: object) -> None:
    job = parse_job(MINIMAL + "split: {classes: [2, 3]}\n", [override])
    assert getattr(getattr(job, key[0]), key[1]) == expected


def test_an_override_reaches_into_a_short_form() -> None:
    job = parse_job(MINIMAL, ["sites.N3.learning_rate=0.5", "task.options.hidden=8"])
    assert job.site("N3").learning_rate == 0.5
    assert job.task.options == {"hidden": 8}


def test_later_overrides_win() -> None:
    assert parse_job(MINIMAL, ["sites=2", "sites=3"]).site_names == ("N1", "N2", "N3")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds", "--set: rounds: 'rounds' should be key=value"),
        ("training..rounds=1", "--set: training..rounds: 'training..rounds' has an empty part"),
        ("training.rounds.deep=1", "there is nothing to set inside 300"),
        ("split.classes.7=1", "the list has items 0 to 1, not 7"),
        ("training.rounds={", "is not YAML"),
        ("traning.rounds=1", "--set: traning: unknown key; did you mean 'training'?"),
        ("training.rounds=x", "--set: training.rounds: should be a valid integer, found 'x'"),
    ],
)
def test_a_wrong_override_is_told_as_such(override: str, message: str) -> None:
    text = MINIMAL + "split: {classes: [2, 3]}\ntraining: {rounds: 300}\n"
    (problem,) = problems_of(text, override)
    assert message in problem


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("traning: {}", "line 4, column 1: traning: unknown key; did you mean 'training'?"),
        ("learning_rate: 1", "line 4, column 1: learning_rate: unknown key here; did you mean 'training.lea"),
        ("training: {lr: 1}", "line 4, column 12: training.lr: unknown key; known: rounds"),
        ("training: {rounds: 2.5}", "line 4, column 20: training.rounds: should be a valid integer, found 2"),
        ("training: {rounds: true}", "training.rounds: should be a valid integer, found True"),
        ("training: {rounds: '5'}", "training.rounds: should be a valid integer, found '5'"),
        ("training: {learning_rate: 0}", "training.learning_rate: should be greater than 0, found 0"),
        ("training: {learning_rate: .inf}", "training.learning_rate: should be a finite number, found inf"),
        ("training: {momentum: 1}", "training.momentum: should be less than 1, found 1"),
        ("training: 5", "training: should be a mapping of keys to values, found 5"),
        ("algorithm: eclisvr", "line 4, column 12: algorithm.name: unknown algorithm 'eclisvr'; did you mea"),
        ("algorithm: {name: c-ecl, compression: topk}", "unknown compression 'topk'; did you mean 'top-k'?"),
        ("algorithm: {name: c-ecl, number_format: int4}", "unknown number format 'int4'; did you mean 'int8'?"),
        ("algorithm: {name: c-ecl, keep: 0}", "algorithm.keep: should be greater than 0, found 0"),
        ("algorithm: {keep: 0.5}", "algorithm.keep: has no meaning for the algorithm 'sm-ecl', only for c-ecl"),
        ("algorithm: {name: swarm}", "unknown algorithm 'swarm'; known: "),
        ("algorithm: {penalty: 1}", "algorithm.penalty: has no meaning for the algorithm 'sm-ecl', only for"),
        ("algorithm: {averaging: 1.5}", "algorithm.averaging: should be less than or equal to 1, found 1.5"),
        ("topology: rnig", "unknown topology 'rnig'; did you mean 'ring'?"),
        ("topology: {degree: 3}", "topology.degree: has no meaning for the topology 'ring', only for random"),
        ("topology: random-regular", "needs a degree"),
        ("topology: {kind: edges, edges: [[N1, N2], [N3, N4]]}", "line 4, column 11: topology: the topology"),
        ("topology: {kind: edges, edges: [[N1, N9]]}", "unknown site 'N9'"),
        ("topology: {kind: edges, edges: [[N1, N2, N3]]}", "topology.edges: should be a list of [site, site"),
        ("topology: {kind: random-regular, degree: 9}", "degree 9 is impossible"),
        ("split: {kind: iid, alpha: 1}", "split.alpha: has no meaning for the split 'iid', only for dirichl"),
        ("split: {classes: [3, 2]}", "split.classes: should be [least, most], found [3, 2]"),
        ("split: {classes: 2}", "split.classes: should be a valid tuple, found 2"),
        ("exchange: {mode: pushh}", "exchange.mode: unknown mode 'pushh'; did you mean 'push'?"),
        (
            "training: {local_steps: 1}\nalgorithm: ecl-isvr",
            "training.local_steps: should be 2 or more for the algorithm 'ecl-is",
        ),
        ("name: again", "line 4, column 1: name: the key is given twice; it first stands in line 1"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_problem_with_its_place(line: str, problem: str) -> None:
    (found,) = problems_of(f"{MINIMAL}{line}\n")
    assert problem in found
    assert "line 4" in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: Big\ntask: digits\nsites: 2\n", "line 1, column 7: name: should be lower-case letters"),
        (
            "name: a\ntask: digitz\nsites: 2\n",
            "line 2, column 7: task.name: unknown task 'digitz'; did you mean",
        ),
        ("name: a\ntask: {model: m:b}\nsites: 2\n", "task.data: is missing"),
        (
            "name: a\ntask: {model: mb, data: d:l}\nsites: 2\n",
            "task.model: should be module:function, found 'mb'",
        ),
        ("name: a\ntask: {name: digits, data: d:l}\nsites: 2\n", "'digits' has its own data"),
        ("name: a\ntask: {name: digits, loss: crossentropy}\nsites: 2\n", "one of cross_entropy"),
        ("name: a\ntask: digits\nsites: 0\n", "line 3, column 8: sites: should be a number of sites"),
        ("name: a\ntask: digits\nsites: [x, x]\n", "sites: site x is listed twice"),
        ("name: a\ntask: digits\nsites: [a b, c]\n", "sites.a b: should be letters, digits and - inside"),
        ("name: a\ntask: digits\nsites:\n  x: {rate: 1}\n", "line 4, column 7: sites.x.rate: unknown key"),
        ("name: a\ntask: digits\nsites:\n  x: {url: there}\n", "sites.x.url: should be a URL such as"),
        ("name: a\ntask: digits\n", "sites: is missing"),
        ("", "name: is missing"),
        ("- a\n- b\n", "a job is a mapping of keys to values"),
        ("name: [a\n", "not YAML"),
    ],
)
def test_what_every_job_needs(text: str, problem: str) -> None:
    assert any(problem in found for found in problems_of(text))


def test_all_problems_are_told_together_in_the_order_of_the_lines() -> None:
    found = problems_of(
        "name: Digits\ntask: digitz\nsites: 4\ntraining:\n  local_steps: 0\n  rounds: x\ntopology: rin\nfoo: 1\n"
    )
    keys = [text.split(": ")[1] for text in found]
    assert keys == ["name", "task.name", "training.local_steps", "training.rounds", "topology.kind", "foo"]


def test_two_neighbours_that_can_only_call_out_can_not_exchange() -> None:
    sites = "sites:\n  a: {reach: outbound}\n  b: {reach: outbound}\n  c:\ntopology: chain\n"
    (problem,) = problems_of(f"name: x\ntask: digits\n{sites}")
    assert "line 4" in problem
    assert "a and b are neighbours and both can only call out" in problem
    assert parse_job(f"name: x\ntask: digits\n{sites}", ["sites.b.reach=inbound"]).site("b").reach == "inbound"


def test_the_error_names_the_file_in_every_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: a\ntask: digits\nsites: 2\nfoo: 1\nbar: 2\n")
    with pytest.raises(JobFileError) as caught:
        load_job(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith(str(path)) for line in lines)


def test_a_file_that_cannot_be_read_is_a_job_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="No such file"):
        load_job(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JobError, match="not UTF-8"):
        load_job(tmp_path / "binary.yaml")


def test_the_names_are_those_of_the_registries() -> None:
    assert set(names.ALGORITHMS) == set(algorithm_names())
    assert set(names.SERVER_ALGORITHMS) == set(server_algorithm_names())
    assert set(names.ALGORITHM_OPTIONS) < {option.name for option in fields(AlgorithmOptions)}
    assert compression_names() == (names.COMPRESSIONS, names.NUMBER_FORMATS)
    assert set(names.TOPOLOGY_OPTIONS) == set(topology_kinds())
    assert set(names.SPLIT_OPTIONS) == set(SPLIT_KINDS)
    assert set(names.TASKS) == set(BUILT_IN)
    assert (set(names.LOSSES), set(names.METRICS)) == (set(LOSSES), set(METRICS))


def test_the_sections_fit_what_they_are_for() -> None:
    job = parse_job(MINIMAL)
    assert SplitOptions(**job.split.model_dump()) == SplitOptions()
    assert AlgorithmOptions(**job.algorithm.model_dump()) == AlgorithmOptions()
    assert TaskSpec(**job.task.model_dump()) == TaskSpec(name="digits")


def test_every_name_of_a_topology_can_be_built() -> None:
    options = {
        "random-regular": {"degree": 3},
        "edges": {"edges": [[f"N{i}", f"N{i + 1}"] for i in range(1, 8)]},
    }
    for kind in names.TOPOLOGY_OPTIONS:
        text = {
            "name": "a",
            "task": "digits",
            "sites": 8,
            "topology": {"kind": kind, **options.get(kind, {})},
        }
        assert len(Job.model_validate(text).topology_graph().sites) == 8


def test_reading_a_job_does_not_load_torch() -> None:
    code = "import sys, concord.job, concord.settings, concord.cli.main as command; command.create_app()"
    code += "; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm={name: gossip, momentum: 0.5}", "only for momentum-tracking, qg-dsgdm"),
        ("algorithm={name: fedavg, proximal: 1}", "only for fedprox"),
        ("algorithm={name: qg-dsgdm, momentum: 1}", "algorithm.momentum: should be less than 1, found 1"),
        ("algorithm={name: fedprox, proximal: 0}", "algorithm.proximal: should be greater than 0, found 0"),
        ("algorithm=relay-sgd", "topology: should be a tree for the algorithm 'relay-sgd'"),
    ],
)
def test_an_option_or_topology_that_an_algorithm_cannot_use_is_told(override: str, message: str) -> None:
    (problem,) = problems_of(MINIMAL, override)
    assert message in problem


def test_a_tree_is_what_relay_sgd_needs() -> None:
    assert parse_job(MINIMAL, ["algorithm=relay-sgd", "topology=star"]).algorithm.name == "relay-sgd"


def test_only_a_simulation_runs_an_algorithm_with_a_server() -> None:
    parse_job(MINIMAL).require_deployable()
    with pytest.raises(JobError, match="fedavg needs a server"):
        parse_job(MINIMAL, ["algorithm=fedavg"]).require_deployable()


def test_mean_damping_wants_all_parameters_shared() -> None:
    (problem,) = problems_of(MINIMAL, "training={mean_damping: 0.1, local: [head.*]}")
    assert "training.mean_damping: cannot be beside local" in problem
    assert parse_job(MINIMAL, ["training.mean_damping=0.1"]).training.mean_damping == 0.1
    (problem,) = problems_of(MINIMAL, "training.mean_damping=0")
    assert "training.mean_damping: should be greater than 0" in problem


def test_a_shard_must_be_one_of_those_that_the_split_deals_out() -> None:
    text = "name: x\ntask: digits\nsites:\n  a: {shard: 2}\n  b:\n"
    with pytest.raises(JobFileError, match=r"line 4.*sites.a.shard: has no meaning without split.shards"):
        parse_job(text)
    with pytest.raises(JobFileError, match=r"sites.a.shard: should be from 0 to 1, found 2"):
        parse_job(text, ["split.shards=2"])
    assert parse_job(text, ["split.shards=3"]).sites["a"].shard == 2


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("head", ("head",)),
        ("['0.*', head]", ("0.*", "head")),
        ("{steps: 3}", ("head",)),
        ("{parameters: ['2.*']}", ("2.*",)),
    ],
)
def test_a_sites_own_variant_has_short_forms(text: str, patterns: tuple[str, ...]) -> None:
    job = parse_job(f"name: own\ntask: digits\nsites: 2\nserving: {{personal: {text}}}\n")
    assert job.serving.personal is not None
    assert job.serving.personal.parameters == patterns
    assert job.serving.personal.steps == (3 if "steps" in text else 50)


@pytest.mark.parametrize(
    ("serving", "key"),
    [
        ("{shadow: 1.5}", "serving.shadow"),
        ("{gate: {drop: -1}}", "serving.gate.drop"),
        ("{gate: {metrik: accuracy}}", "serving.gate.metrik"),
        ("{personal: []}", "serving.personal"),
    ],
)
def test_what_serving_may_not_say(serving: str, key: str) -> None:
    with pytest.raises(JobError, match=key):
        parse_job(f"name: own\ntask: digits\nsites: 2\nserving: {serving}\n")


def test_a_variant_of_ones_own_is_no_business_of_a_private_site() -> None:
    text = "name: own\ntask: digits\nsites: 2\nserving: {personal: head}\nprivacy: {noise_multiplier: 1.0}\n"
    with pytest.raises(JobFileError, match=r"serving\.personal: cannot be beside privacy"):
        parse_job(text)
