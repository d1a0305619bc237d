"""Who is in a federation now, where they are and who exchanges with whom: what a job says until something newer does.

A JSON document of a rising version, laid where a running site can read it, by a chart or by `concord fleet`. Sites
follow it without a restart; whatever it says of sites and edges wins over the job. Must not load torch.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError

from concord.consensus.graph import Topology
from concord.errors import JobError, TopologyError
from concord.job.model import REACHES, BaseUrl, Job, SiteName
from concord.job.values import Count, Positive, Section, one_of


class Member(Section):
    """One site: where neighbours find it (null: it cannot be called), and what it does otherwise than the job says.

    `learning_rate` and `local_steps` matter to neighbours because both ends of an edge derive its terms from both.
    """

    url: BaseUrl | None = None
    reach: Annotated[str, one_of("reach", REACHES)] = "both"
    learning_rate: Positive | None = None
    local_steps: Count | None = None


def _two_in_order(sites: tuple[str, str]) -> tuple[str, str]:
    one, other = sorted(sites)
    return one, other


class MemberEdge(Section):
    """Two sites that exchange, in alphabetical order. `epoch` rises when an edge comes back after it was gone."""

    sites: Annotated[tuple[SiteName, SiteName], Field(strict=False), AfterValidator(_two_in_order)]
    epoch: Count = 1


class Membership(Section):
    """The sites and edges of a federation as of `version`; of two documents the higher version is the newer."""

    version: Annotated[int, Field(ge=0)]
    sites: dict[SiteName, Member]
    edges: Annotated[tuple[MemberEdge, ...], Field(strict=False)] = ()

    @classmethod
    def of(cls, job: Job) -> Self:
        """What the job says by itself, as version 0; TopologyError if its topology cannot be used."""
        return cls(
            version=0,
            sites={
                name: Member(
                    url=site.url, reach=site.reach, learning_rate=site.learning_rate, local_steps=site.local_steps
                )
                for name, site in job.sites.items()
            },
            edges=tuple(MemberEdge(sites=edge) for edge in sorted(job.topology_graph().edges)),
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """JobError with everything that is wrong: unknown keys, names, edges that repeat, a graph in pieces."""
        try:
            membership = cls.model_validate_json(text)
        except ValidationError as error:
            details = error.errors(include_url=False)
            wrong = "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'text'}: {detail['msg']}" for detail in details)
            raise JobError(f"the membership document is not right: {wrong}") from error
        if len({edge.sites for edge in membership.edges}) < len(membership.edges):
            raise JobError("the membership document is not right: edges: an edge is listed twice")
        try:
            membership.graph()
        except TopologyError as error:
            raise JobError(f"the membership document is not right: edges: {error}") from error
        return membership

    def to_json(self) -> str:
        """The document that `from_json` reads."""
        return self.model_dump_json(exclude_defaults=True)

    def graph(self) -> Topology:
        """Sites and edges as a graph."""
        return Topology(tuple(self.sites), frozenset(edge.sites for edge in self.edges))

    def epochs(self, site: str) -> dict[str, int]:
        """The epoch of each edge of `site`, by neighbour; empty if it is no member."""
        return {
            right if left == site else left: edge.epoch
            for edge in self.edges
            for left, right in (edge.sites,)
            if site in (left, right)
        }
