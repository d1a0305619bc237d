"""How often a neighbour, and a stranger, may ask: token buckets, bounded in number. Knows no HTTP and no signature."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from concord.errors import TooOftenError


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Requests to the exchange's routes.

    A site that has proven who it is may make `site_rate` a second, and `site_burst` at once: far more than any honest
    one. Who has not, shares `stranger_rate` and `stranger_burst` with all at its remote address; a request counts
    until it is proven, so neighbours at one address (behind a proxy) suffer only while they are attacked from there.
    At most `addresses` are remembered, the latest.
    """

    site_rate: float = 1000.0
    site_burst: int = 2000
    stranger_rate: float = 8.0
    stranger_burst: int = 64
    addresses: int = 4096


class Bucket:
    """At most `burst` tokens, of which `rate` come back a second; full at first."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 if there is one."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(now, self._at)
        return max(0.0, (1.0 - self._tokens) / self._rate)

    def take(self, now: float) -> float:
        """Take a token, or say in how many seconds there will be one."""
        wait = self.wait(now)
        if not wait:
            self._tokens -= 1.0
        return wait

    def give_back(self) -> None:
        """What was taken was not owed."""
        self._tokens = min(self._burst, self._tokens + 1.0)


class Rates:
    """Counts requests; TooOftenError for those beyond the limits. `clock` counts seconds and never goes back."""

    def __init__(self, limits: RateLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._sites: dict[str, Bucket] = {}
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()

    def approach(self, address: str, site: str) -> None:
        """Somebody at an address says that it is a site, and has not proven it.

        Refused at once too if that site has had its share, which only that site itself can have used up.
        """
        bucket = self._sites.get(site)
        _require(0.0 if bucket is None else bucket.wait(self._clock()), f"{site} asks too often")
        _require(self._address(address).take(self._clock()), f"{address} has asked too often without proof")

    def proven(self, address: str, site: str) -> None:
        """It has proven it now, and is a neighbour."""
        self._address(address).give_back()
        bucket = self._sites.get(site)
        if bucket is None:
            limits = self._limits
            bucket = self._sites[site] = Bucket(limits.site_rate, limits.site_burst, self._clock())
        _require(bucket.take(self._clock()), f"{site} asks too often")

    def _address(self, address: str) -> Bucket:
        bucket = self._addresses.get(address)
        if bucket is None:
            limits = self._limits
            bucket = self._addresses[address] = Bucket(limits.stranger_rate, limits.stranger_burst, self._clock())
            if len(self._addresses) > limits.addresses:
                self._addresses.popitem(last=False)
        else:
            self._addresses.move_to_end(address)
        return bucket


def _require(wait: float, what: str) -> None:
    if wait:
        raise TooOftenError(f"{what}; again in {wait:.1f} s", wait)
