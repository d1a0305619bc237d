"""The files of the console's page, from the package, and the headers that keep the page to itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Self

from fastapi import Response

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    tag: str


@dataclass(frozen=True, slots=True)
class Page:
    """All files in memory, by name: no path of a request ever becomes a path of the machine."""

    files: Mapping[str, _File]

    @classmethod
    def load(cls) -> Self:
        """The files that come with the package."""
        found = {}
        for path in (files("concord.console") / "page").iterdir():
            ending = path.name.rpartition(".")[2]
            if ending in _TYPES:
                body = path.read_bytes()
                found[path.name] = _File(body, _TYPES[ending], f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        return cls(found)

    def answer(self, name: str, known: str | None) -> Response:
        """The file, 304 if the browser knows it, or 404."""
        file = self.files.get(name)
        if file is None:
            return Response(status_code=404, headers=HEADERS)
        headers = {**HEADERS, "etag": file.tag}
        if known == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers=headers, media_type=file.media_type)
