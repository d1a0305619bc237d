"""The load test's profiles, its objectives, and the updates of its neighbour."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from concord.wire.codec import read_header
from loadtest.__main__ import JOB
from loadtest.neighbour import pushes
from loadtest.objectives import ALL, ObjectivesError, Outcome, read_objectives, table, violations
from loadtest.profiles import PROFILES, Profile, Stage

GOOD = Outcome("predict", requests=200, errors=0, refused=0, per_second=20.0, p50=5.0, p99=50.0)


def test_users_follow_the_stages() -> None:
    profile = Profile((Stage(10, 3), Stage(5, 50)))
    assert [profile.users_at(at) for at in (0, 9.9, 10, 14.9, 15)] == [3, 3, 50, 50, None]
    assert profile.seconds == 15


def test_the_smoke_test_is_bounded_in_time_and_count() -> None:
    assert PROFILES["smoke"].seconds <= 30
    assert PROFILES["smoke"].requests is not None


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_objectives_for_every_kind(profile: str) -> None:
    objectives = read_objectives(profile)
    assert objectives.keys() == {"infer json", "infer binary", "predict", "push"}
    assert all({"p50", "p99", "errors", "refused"} <= limits.keys() for limits in objectives.values())


def test_what_a_profile_says_wins(tmp_path: Path) -> None:
    file = tmp_path / "slo.yaml"
    file.write_text(f"{ALL}:\n  predict: {{p99: 10, errors: 0}}\nspike:\n  predict: {{p99: 99}}\n")
    assert read_objectives("spike", file) == {"predict": {"p99": 99, "errors": 0}}
    assert read_objectives("smoke", file) == {"predict": {"p99": 10, "errors": 0}}


@pytest.mark.parametrize(
    ("text", "place"),
    [("- 1", "sections"), ("all: {predict: 3}", "all.predict"), ("all: {predict: {p98: 3}}", "all.predict.p98")],
)
def test_a_file_that_is_wrong_is_told_where(tmp_path: Path, text: str, place: str) -> None:
    file = tmp_path / "slo.yaml"
    file.write_text(text)
    with pytest.raises(ObjectivesError, match=place):
        read_objectives("smoke", file)


@pytest.mark.parametrize(
    ("limits", "missed"),
    [
        ({"p50": 5.0, "p99": 50.0, "errors": 0, "refused": 0, "per_second": 20}, []),
        ({"p99": 49}, ["p99"]),
        ({"per_second": 21, "p50": 4}, ["per_second", "p50"]),
    ],
)
def test_limits_are_held_against_what_was_measured(limits: dict[str, float], missed: list[str]) -> None:
    found = violations([GOOD], {"predict": limits})
    assert [sentence.split()[1] for sentence in found] == missed


def test_errors_and_refusals_are_shares() -> None:
    bad = Outcome("predict", requests=200, errors=2, refused=20, per_second=20.0, p50=5.0, p99=50.0)
    limits = {"errors": 0.01, "refused": 0.1}
    assert violations([bad], {"predict": limits}) == []
    assert len(violations([bad], {"predict": {"errors": 0.009, "refused": 0.09}})) == 2
    assert "| predict | 200 | 20.0 | 5.0 | 50.0 | 1.00% (at most 1.00%) | 10.00% (at most 10.00%) |" in table(
        [bad], {"predict": limits}
    )


def test_what_was_never_asked_has_not_held() -> None:
    nothing = Outcome("predict", 0, 0, 0, 0.0, 0.0, 0.0)
    assert violations([nothing], {"predict": {"errors": 0}}) == ["predict: was never asked"]


def test_each_update_of_the_neighbour_is_newer_than_the_one_before_and_says_that_it_has_not_begun(
    tmp_path: Path,
) -> None:
    job, secret = tmp_path / "job.yaml", tmp_path / "secret"
    job.write_text(JOB)
    secret.write_text("a secret of sixteen bytes and more")
    first, second = islice(pushes(job, "B", "A", secret), 2)
    headers = [read_header(push.body, len(push.body)) for push in (first, second)]
    assert headers[0].stamp < headers[1].stamp
    assert {(one.sender, one.receiver, one.round) for one in headers} == {("B", "A", 0)}
    assert first.target == "/v1/inbox/B"
    assert first.headers["concord-signature"] != second.headers["concord-signature"]
