"""The `simulation` section: the network, the faults and the clock of `concord simulate`; deployed sites ignore it.

All times are in virtual seconds from the start. Must not know how any of it is simulated.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from concord.job.names import BATCHING, JITTERS
from concord.job.values import NotNegative, Positive, Section, one_of


def _from_zero(upper: float, *, included: bool) -> AfterValidator:
    def check(value: float) -> float:
        if not (0 <= value < upper or (included and value == upper)):
            raise ValueError(f"should be from 0 to {'' if included else 'below '}{upper:g}, found {value:g}")
        return value

    return AfterValidator(check)


class LinkSection(Section):
    """One edge, alike in both directions.

    A message takes its size over `bandwidth` (bytes per second; null: no time) on its way into the link, and then
    `latency` seconds: always so (`jitter` constant), evenly spread from 0 to twice that (uniform), or exponentially
    distributed around it. `loss` and `duplication` are the chances that a message is lost or arrives twice.
    """

    latency: NotNegative = 0.0
    jitter: Annotated[str, one_of("jitter", JITTERS)] = "constant"
    bandwidth: Positive | None = None
    loss: Annotated[float, _from_zero(1, included=False)] = 0.0
    duplication: Annotated[float, _from_zero(1, included=True)] = 0.0


class SpanSection(Section):
    """From `start` to before `end`."""

    start: NotNegative
    end: Positive


class PartitionSection(SpanSection):
    """No message passes over `edges` ("N1-N2"), nor between one of `sites` and a site that is not among them."""

    edges: Annotated[tuple[str, ...], Field(strict=False)] = ()
    sites: Annotated[tuple[str, ...], Field(strict=False)] = ()


class CrashSection(Section):
    """The site dies `at` this time, and starts again from its last checkpoint after `down` seconds."""

    at: NotNegative
    down: Positive


class SiteFaultsSection(Section):
    """What happens to one site.

    A local step takes `step_seconds` / `speed`. During `pauses` the site does nothing, though its mailbox fills. It
    `joins` late (null: it is there from the start) or `leaves` for good (null: it stays), by a decision of both ends
    of each of its edges; one that leaves before it joins comes back as it left.
    """

    speed: Positive = 1.0
    pauses: Annotated[tuple[SpanSection, ...], Field(strict=False)] = ()
    crashes: Annotated[tuple[CrashSection, ...], Field(strict=False)] = ()
    joins: Positive | None = None
    leaves: Positive | None = None


class SimulationSection(Section):
    """Sites under virtual time.

    A local step takes `step_seconds` at speed 1. The run ends after `duration` (null: when `training` says so). All
    sites are measured on the whole test set once in `evaluate_every`. `edges` says which links ("N1-N2") are
    otherwise than `network`. Where `batched` is auto, sites whose steps fall on one instant compute their gradients
    in one call, if the model allows it.
    """

    step_seconds: Positive = 0.01
    duration: Positive | None = None
    evaluate_every: Positive = 1.0
    network: LinkSection = LinkSection()
    edges: dict[str, LinkSection] = Field(default_factory=dict)
    partitions: Annotated[tuple[PartitionSection, ...], Field(strict=False)] = ()
    sites: dict[str, SiteFaultsSection] = Field(default_factory=dict)
    batched: Annotated[str, one_of("batched", BATCHING)] = "auto"

    def link(self, *names: str) -> LinkSection:
        """The link of an edge that may be called any of `names`: `network`, changed as `edges` says."""
        changes = {
            key: getattr(section, key)
            for name, section in self.edges.items()
            if name in names
            for key in section.model_fields_set
        }
        return self.network.model_copy(update=changes)

    def faults(self, site: str) -> SiteFaultsSection:
        """What happens to a site; nothing, if it is not mentioned."""
        return self.sites.get(site, SiteFaultsSection())
