"""Settings of one process, as opposed to the job, which all sites share: where things are, and the secret.

Flags win over the environment (CONCORD_*), which wins over defaults. Knows no framework and imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from concord.errors import JobError

MIN_SECRET_BYTES = 16
"""A shorter shared secret is refused: it could be guessed from one recorded request."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A shared secret; `repr` and `str` hide it, so that it reaches no log. Read `.value` where it is used."""

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.value) < MIN_SECRET_BYTES:
            raise JobError(f"the secret has {len(self.value)} bytes; it needs at least {MIN_SECRET_BYTES}")

    def __str__(self) -> str:
        return "Secret(...)"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The secret as given in an environment variable; surrounding white space does not count."""
        return cls(text.strip().encode())

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The secret in a file, surrounding white space removed; JobError if the file cannot be read."""
        try:
            return cls(path.read_bytes().strip())
        except OSError as error:
            raise JobError(f"the secret file {path} cannot be read: {error.strerror}") from error
