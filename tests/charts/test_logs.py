"""What the values say of logs reaches every process of ours, and is read by it as it was meant."""

from __future__ import annotations

import pytest

from chart import Release, with_values
from concord.settings import load_settings


def told(release: Release) -> dict[str, tuple[str, str]]:
    """By component, the format and the level that its process takes."""
    found = {}
    for pod in release.pods():
        container = pod.spec["containers"][0]
        flags = dict(
            text[2:].replace("-", "_").split("=", 1) for text in container.get("args", []) if text.startswith("--log")
        )
        variables = {one["name"]: one.get("value", "") for one in container.get("env", [])}
        logs = {name: text for name, text in variables.items() if name.startswith("CONCORD_LOG")}
        settings = load_settings(flags, logs)
        found[pod.component] = (settings.log_format, settings.log_level)
    return found


@pytest.mark.parametrize("layout", ["combined", "split"])
def test_format_and_level_reach_every_process(layout: str) -> None:
    processes = {"combined": ["site"], "split": ["trainer", "exchange", "inference"]}[layout]
    more = {"layout": layout, "fleet": {"enabled": True}, "console": {"enabled": True}}
    said = told(with_values(log={"format": "json", "level": "debug"}, **more))
    assert {said[component] for component in (*processes, "fleet", "console")} == {("json", "debug")}
    assert set(told(with_values(**more)).values()) == {("text", "info")}
