"""Where a console finds the sites: names with the addresses they answer at. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from concord.errors import JobError

MOST_SITES = 1000
"""More are a mistake, or too many to look at on one page."""


@dataclass(frozen=True, slots=True)
class Place:
    """One site: `status` is the base URL of the process that tells its status, `predict` of that which predicts."""

    name: str
    status: str
    predict: str


def places(sites: Mapping[str, str], predict: Mapping[str, str] | None = None) -> tuple[Place, ...]:
    """Places of sites by their URLs; `predict` names those whose predictions are answered elsewhere.

    JobError for a URL that is none, a site that is not there, and too many sites.
    """
    elsewhere = predict or {}
    for name in elsewhere:
        if name not in sites:
            raise JobError(f"--predict-at names {name!r}, which is not one of --sites: {', '.join(sites)}")
    if not 0 < len(sites) <= MOST_SITES:
        raise JobError(f"a console shows 1 to {MOST_SITES} sites, not {len(sites)}")
    return tuple(Place(name, _base(name, url), _base(name, elsewhere.get(name, url))) for name, url in sites.items())


def parse_sites(given: Sequence[str], flag: str) -> dict[str, str]:
    """`N1=http://host:port,N2=...`, in one text or several, as a mapping; JobError says what would be right."""
    found: dict[str, str] = {}
    for part in (part.strip() for text in given for part in text.split(",")):
        name, equals, url = (word.strip() for word in part.partition("="))
        if not (name and equals and url):
            raise JobError(f"{flag} has {part!r}; it should be NAME=URL, such as N1=http://127.0.0.1:8100")
        if name in found:
            raise JobError(f"{flag} names {name!r} twice")
        found[name] = url
    return found


def _base(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right or parts.query or parts.fragment:
        raise JobError(f"site {name} has the address {url!r}; it should be like http://127.0.0.1:8100")
    return url.rstrip("/")
