"""Eight sites in containers, each with its Redis beside it, on a network: the same result as anywhere else."""

from __future__ import annotations

import time
from statistics import mean

import httpx
import pytest

from concord.cli.watch import FleetWatch
from container_engine import Engine
from container_pods import Pods

POOLED = 98.9
"""Accuracy in % of one model trained on all the digits in one place: README.md, what to rely on."""

ROUNDS, PACE = 1000, 0.1
"""More rounds, further apart (s), than the example's 300: where processors are few, sites start many seconds apart, and
those that begin first must neither be done before the last begin nor take the processors from them."""
EIGHT = (f"training.rounds={ROUNDS}", f"training.pace={PACE}")

pytestmark = pytest.mark.timeout(900)


def rounds_of(watch: FleetWatch, site: str) -> int:
    status = watch.statuses[site]
    return int(status["progress"]["round"]) if status else 0


def check_result(watch: FleetWatch, report: list[str], what: str) -> None:
    """Every site is as good as training on pooled data, within what README.md promises."""
    progress = {site: status["progress"] for site, status in watch.statuses.items() if status}
    accuracies = [100 * one["metrics"]["accuracy"] for one in progress.values()]
    report.append(
        f"{what}: mean {mean(accuracies):.1f} %, worst {min(accuracies):.1f} %, best {max(accuracies):.1f} %; "
        f"first round of all after {watch.first_round_after or 0:.1f} s, all {ROUNDS} after {watch.elapsed:.1f} s"
    )
    assert len(accuracies) == 8
    assert {one["round"] for one in progress.values()} == {ROUNDS}
    assert mean(accuracies) >= POOLED - 1.0
    assert min(accuracies) >= POOLED - 2.0


def test_eight_sites_converge_to_what_pooled_data_would_give(engine: Engine, image: str, report: list[str]) -> None:
    sites = Pods(engine, image, *EIGHT)
    with FleetWatch(sites.urls) as watch:
        sites.start()
        sites.wait_until(lambda: watch.finished, "all sites finished")
        check_result(watch, report, "eight sites")
    for pod in sites.pods.values():
        for name in (pod.site, pod.redis):
            state = engine.inspect("container", name)["State"]
            assert (state["Running"], state["OOMKilled"]) == (True, False)


def test_a_site_and_a_redis_that_are_killed_come_back_and_change_nothing(
    engine: Engine, image: str, report: list[str]
) -> None:
    sites = Pods(engine, image, *EIGHT)
    with FleetWatch(sites.urls) as watch:
        sites.start()
        sites.wait_until(lambda: rounds_of(watch, "N3") >= 60, "N3 in round 60")
        engine.call("kill", sites["N3"].site)
        killed_at = rounds_of(watch, "N3")
        sites.wait_until(lambda: rounds_of(watch, "N2") >= killed_at + 40, "N2 going on without its neighbour N3")
        engine.call("kill", sites["N6"].redis)
        sites.wait_until(lambda: not answers(sites["N6"].url, "/readyz"), "N6 missing its Redis")
        engine.call("start", sites["N3"].site, sites["N6"].redis)
        sites.wait_until(lambda: answers(sites["N6"].url, "/readyz"), "N6 having its Redis back")
        sites.wait_until(lambda: watch.finished, "all sites finished")
        check_result(watch, report, "a site and a Redis killed")
        lives = {site: status["progress"]["incarnation"] for site, status in watch.statuses.items() if status}
        assert lives == {site: 2 if site == "N3" else 1 for site in lives}


def answers(url: str, route: str) -> bool:
    try:
        return httpx.get(url + route, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_site_told_to_stop_leaves_a_checkpoint_from_which_it_goes_on(
    engine: Engine, image: str, report: list[str]
) -> None:
    sites = Pods(engine, image, "training.rounds=100000", "checkpoint.every=86400", only=1)
    pod = sites["N1"]
    with FleetWatch(sites.urls) as watch:
        sites.start()
        sites.wait_until(lambda: rounds_of(watch, "N1") >= 40, "N1 in round 40")
        began = time.monotonic()
        engine.call("stop", "--time", "20", pod.site)
        report.append(f"stop of a site: {time.monotonic() - began:.1f} s")
        assert engine.inspect("container", pod.site)["State"]["ExitCode"] == 0
        assert pod.checkpoints()
        stopped_at = rounds_of(watch, "N1")
        engine.call("start", pod.site)
        sites.wait_until(lambda: incarnation(watch) == 2, "N1 again")
        assert rounds_of(watch, "N1") >= stopped_at
    began = time.monotonic()
    engine.call("stop", "--time", "20", pod.redis)
    report.append(f"stop of a Redis: {time.monotonic() - began:.1f} s")
    assert engine.inspect("container", pod.redis)["State"]["ExitCode"] == 0


def incarnation(watch: FleetWatch) -> int:
    status = watch.statuses["N1"]
    return int(status["progress"]["incarnation"]) if status else 0
