"""Which of the sites that are seen belong to the federation now: being away briefly takes nobody out. Pure.

A site comes when its Service does, ready or not, because it can be ready only with neighbours. It goes when neither
its Service nor a pod of it is left, or when it has not been ready for the whole grace; then it comes back when it is
ready. Time is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from concord.fleet.sites import Sighting
from concord.job.membership import Member


@dataclass(frozen=True, slots=True)
class Wanted:
    """The sites that should be members, and when that may change though nothing else does (epoch s; None: never)."""

    sites: Mapping[str, Member]
    until: float | None


@dataclass(slots=True)
class Presence:
    """Remembers since when each site has not been ready. `grace` is in seconds; 0: no site goes for that."""

    grace: float
    _since: dict[str, float] = field(default_factory=dict)

    def since(self, site: str) -> float | None:
        """Since when a site has not been ready; None if it is, or is not seen."""
        return self._since.get(site)

    def update(self, sightings: Mapping[str, Sighting], members: Mapping[str, Member], now: float) -> Wanted:
        """`members` are those of the document that stands, which says whether a site is new."""
        self._since = {site: at for site, at in self._since.items() if site in sightings}
        sites: dict[str, Member] = {}
        ends: list[float] = []
        for site, seen in sightings.items():
            member = seen.member or members.get(site)
            end = self._end(seen, site in members, now)
            if member is None or (end is not None and end <= now):
                continue
            sites[site] = member
            if end is not None:
                ends.append(end)
        return Wanted(sites, min(ends, default=None))

    def _end(self, seen: Sighting, is_member: bool, now: float) -> float | None:
        """When the patience with a site ends; None if it is ready or patience is endless."""
        if seen.ready:
            self._since.pop(seen.site, None)
            return None
        # Of a site that is no member nobody knows how long it was away, if not since it was made: this process may
        # have begun a moment ago, and whoever took the site out may have been another.
        at = max(self._since.get(seen.site, now if is_member else seen.created), seen.created)
        self._since[seen.site] = at
        return at + self.grace if self.grace > 0 else None
