"""How a certificate names a site: one URI, `spiffe://<federation>/site/<site>` (the form of SPIFFE identities).

Whoever makes certificates and whoever checks them agree here; knows neither how to make one nor TLS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from concord.errors import IdentityError, NotAllowed

_SCHEME = "spiffe://"
_KIND = "/site/"
_SHOWN = 128
"""Characters of a stranger's text that are repeated to a person."""


def site_uri(federation: str, site: str) -> str:
    """The URI that stands in the certificate of a site."""
    return f"{_SCHEME}{federation}{_KIND}{site}"


def uri_parts(uri: str) -> tuple[str, str]:
    """Federation and site of such a URI; IdentityError if it is none."""
    federation, kind, site = uri.removeprefix(_SCHEME).partition(_KIND)
    if not (uri.startswith(_SCHEME) and federation and kind and site) or "/" in federation + site:
        raise IdentityError(
            f"the certificate names {uri[:_SHOWN]!r}, which is not of the form {site_uri('...', '...')}"
        )
    return federation, site


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What counts of a certificate that a trusted CA signed: its URIs, and when it ends (seconds since the epoch)."""

    uris: tuple[str, ...]
    until: float


def certified_site(uris: Sequence[str], federation: str) -> str:
    """The site that a certificate with these URIs was given to.

    IdentityError if it names no site or several, NotAllowed if the site is of another federation.
    """
    if len(uris) != 1:
        raise IdentityError(f"the certificate should name one site by a URI; it has {len(uris)} URIs")
    named, site = uri_parts(uris[0])
    if named != federation:
        raise NotAllowed(f"the certificate names {uris[0][:_SHOWN]}; this is the federation {federation}")
    return site
