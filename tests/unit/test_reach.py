"""Who calls whom, from the job's mode and the sites' reach."""

from __future__ import annotations

import pytest

from concord.apps.reach import plan_routes
from concord.job import Job
from concord.job.membership import Membership
from concord.transport.lane import EdgeRoute

PEERS = {"N1": "http://one:1", "N2": "http://two:2/"}


def routes(mode: str, ours: str = "both", theirs: str = "both") -> tuple[EdgeRoute, EdgeRoute]:
    """Of a pair of sites, each one's route to the other."""
    job = Job.model_validate(
        {
            "name": "pair",
            "task": "digits",
            "sites": {"N1": {"reach": ours}, "N2": {"reach": theirs}},
            "exchange": {"mode": mode},
        }
    )
    return plan_routes(job, "N1", PEERS, Membership.of(job))[0], plan_routes(job, "N2", PEERS, Membership.of(job))[0]


@pytest.mark.parametrize(
    ("mode", "push", "pull"),
    [("push", True, False), ("pull", False, True)],
)
def test_sites_that_reach_each_other_do_as_the_mode_says(mode: str, push: bool, pull: bool) -> None:
    ours, theirs = routes(mode)
    assert ours == EdgeRoute("N2", "http://two:2", push, pull)
    assert theirs == EdgeRoute("N1", "http://one:1", push, pull)


@pytest.mark.parametrize("mode", ["push", "pull"])
@pytest.mark.parametrize(("ours", "theirs"), [("outbound", "both"), ("both", "inbound")])
def test_where_one_end_only_can_call_it_does_both(mode: str, ours: str, theirs: str) -> None:
    caller, called = routes(mode, ours, theirs)
    assert caller == EdgeRoute("N2", "http://two:2", push=True, pull=True)
    assert called == EdgeRoute("N1", None, push=False, pull=False)


def test_the_job_may_say_where_a_site_is() -> None:
    job = Job.model_validate(
        {"name": "pair", "task": "digits", "sites": {"N1": {}, "N2": {"url": "https://two.example"}}}
    )
    assert plan_routes(job, "N1", {}, Membership.of(job))[0].url == "https://two.example"
    assert plan_routes(job, "N1", PEERS, Membership.of(job))[0].url == "http://two:2"


def test_a_neighbour_without_an_address_can_only_call_us() -> None:
    job = Job.model_validate({"name": "pair", "task": "digits", "sites": 2})
    assert plan_routes(job, "N1", {}, Membership.of(job)) == (EdgeRoute("N2", None, push=False, pull=False),)
