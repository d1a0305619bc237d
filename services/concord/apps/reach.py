"""Who calls whom: from what is known of each member's reach to this site's routes to its neighbours."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from concord.job import Job
from concord.job.membership import Membership
from concord.transport.lane import EdgeRoute

log = logging.getLogger(__name__)


def plan_routes(job: Job, site: str, peers: Mapping[str, str], members: Membership) -> tuple[EdgeRoute, ...]:
    """One route per neighbour of `site`; an address in `peers` wins over that of the members.

    The job's mode says who does the calling where both ends can. Where only one end can call, it both pushes
    and pulls.
    """
    neighbours = sorted(members.epochs(site))
    return tuple(_plan(job, site, neighbour, peers.get(neighbour), members) for neighbour in neighbours)


def _plan(job: Job, site: str, neighbour: str, peer: str | None, members: Membership) -> EdgeRoute:
    ours, theirs = members.sites[site], members.sites[neighbour]
    url = peer or theirs.url
    may_call = ours.reach != "inbound" and theirs.reach != "outbound"
    if not may_call or url is None:
        if may_call:
            log.warning("the address of %s is not known: the edge works only if it calls us", neighbour)
        return EdgeRoute(neighbour, None, push=False, pull=False)
    alone = ours.reach == "outbound" or theirs.reach == "inbound"
    pull_mode = job.exchange.mode == "pull"
    return EdgeRoute(
        neighbour,
        url.rstrip("/"),
        push=alone or not pull_mode,
        pull=alone or pull_mode,
        min_interval=job.exchange.min_interval,
    )
