"""The alerts: Prometheus takes them, each fires and is silent where it should be, and each has a page that helps."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from concord.cli.main import create_app
from tools.alert_docs import PAGE, alerts, with_table
from tools.get_prometheus import find
from tools.render_manifests import ROOT, RULES

HERE = Path(__file__).parent
RUNBOOKS = ROOT / "docs" / "runbooks"
FILES = sorted(path.name for path in HERE.glob("*.yaml"))
ALERTS = {alert["alert"]: alert for alert in alerts(RULES.read_text())}
OF_NO_SITE = {"ConcordServiceDown", "ConcordFleetWithoutLeader", "ConcordFleetProblems"}
KEYS_OF_A_SECRET = {"tls.crt", "tls.key"}

every_alert = pytest.mark.parametrize("name", ALERTS)


def promtool(*arguments: str) -> str:
    answer = subprocess.run(
        [find("promtool"), *arguments], cwd=HERE, capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_prometheus_takes_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("file", FILES)
def test_alerts_fire_and_are_silent_as_the_file_says(file: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)


def _moments() -> Iterator[dict[str, Any]]:
    for file in FILES:
        for test in yaml.safe_load((HERE / file).read_text())["tests"]:
            yield from test["alert_rule_test"]


@every_alert
def test_every_alert_is_seen_to_fire_and_to_be_silent(name: str) -> None:
    fires = [bool(moment["exp_alerts"]) for moment in _moments() if moment["alertname"] == name]
    assert {True, False} == set(fires)


def test_no_moment_is_of_an_alert_that_is_not_there() -> None:
    assert {moment["alertname"] for moment in _moments()} == set(ALERTS)


@every_alert
def test_every_alert_says_who_what_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    told = alert["annotations"]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert told.keys() == {"summary", "description", "runbook_url"}
    if name not in OF_NO_SITE:
        assert "$labels.site" in told["summary"]
        assert "$labels.site" in told["description"]
    assert told["runbook_url"] == f"docs/runbooks/{name}.md"
    assert f"Severity: {alert['labels']['severity']}." in (ROOT / told["runbook_url"]).read_text()


def test_no_runbook_is_of_an_alert_that_is_not_there() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(ALERTS)


@every_alert
def test_a_runbook_says_what_it_means_where_to_look_and_what_to_do(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert re.findall(r"^#+ (.*)$", text, re.M) == [name, "What it means", "First look", "Causes and remedies"]
    assert len(_commands(text)) >= 1
    assert len(re.findall(r"^\| (?!cause \|).* \| .* \| .* \|$", text, re.M)) >= 2


def _commands(text: str) -> list[str]:
    """What to type: the lines of a block of code, and what stands in ticks and begins as a command."""
    blocks = [line for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    return blocks + [one for one in re.findall(r"`([^`\n]+)`", text) if one.startswith("concord ")]


@every_alert
def test_the_commands_of_a_runbook_are_commands(name: str) -> None:
    for line in _commands((RUNBOOKS / f"{name}.md").read_text()):
        program, *words = line.split()
        assert program in ("concord", "curl", "kubectl"), line
        if program == "concord":
            _check(words, line)


@functools.cache
def _commandline() -> Any:
    return get_command(create_app())


def _check(words: list[str], line: str) -> None:
    """That the command line knows the command and every option."""
    command = _commandline()
    for word in list(words):
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands") or not words, line
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, line


def test_the_check_of_commands_sees_what_is_wrong() -> None:
    for line in ("concord statsu", "concord status --adress http://n1", "concord models reload 3"):
        with pytest.raises(AssertionError, match=line):
            _check(line.split()[1:], line)


def test_the_values_of_the_chart_that_a_runbook_names_are_there() -> None:
    values = yaml.safe_load((ROOT / "helm" / "concord" / "values.yaml").read_text())
    tops = {key for key, value in values.items() if isinstance(value, dict)} - {"job", "sites", "peers", "tests"}
    for path in RUNBOOKS.glob("*.md"):
        for named in re.findall(r"`((?:\w+\.)+\w+)`", path.read_text()):
            place: Any = values
            top = named.split(".")[0]
            if top in tops and named not in KEYS_OF_A_SECRET:
                for key in named.split("."):
                    assert key in place, f"{path.name}: {named}"
                    place = place[key]


def test_prometheus_takes_the_configurations(tmp_path: Path) -> None:
    promtool("check", "config", str(RULES.parent / "prometheus.yml"))
    (example,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    discovery = "kubernetes_sd_configs: [{role: pod}]"
    assert discovery in example  # which Debian's promtool is built without
    (tmp_path / "prometheus.yml").write_text(example.replace(discovery, "static_configs: [{targets: [a]}]"))
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_the_table_of_alerts_is_fresh() -> None:
    page = PAGE.read_text()
    assert with_table(page, RULES.read_text()) == page, "run make alert-docs"
