"""Who a running process takes for members: the document it was given, followed as it changes, or else the job's word.

A document that cannot be used while a process runs is reported and the one before stays in force: nobody loses an edge
to a slip of the pen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from concord.errors import JobError
from concord.job import Job
from concord.job.membership import Membership
from concord.settings import Settings

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds between two looks at the document."""


class Members:
    """The members of one job's federation, now and later; several may follow one of these."""

    def __init__(self, job: Job, settings: Settings, look_every: float = LOOK_EVERY) -> None:
        """JobError if there is a document and it cannot be used."""
        self._path = settings.topology
        self._look_every = look_every
        self._text = "" if self._path is None else _read(self._path)
        self.now = Membership.of(job) if self._path is None else Membership.from_json(self._text)
        self._first = self.now
        self._reported = ""

    async def changes(self) -> AsyncIterator[Membership]:
        """Each later state than that of construction, however late this is called; none without a document."""
        if self._path is None:
            return
        known = self._first  # a process may take seconds from reading the document to following it
        while True:
            await asyncio.sleep(self._look_every)
            self._look(self._path)
            if self.now is not known:
                known = self.now
                yield known

    def _look(self, path: Path) -> None:
        """Take over what is new, if it can be used."""
        try:
            text = _read(path)
            if text == self._text:
                return
            self.now = Membership.from_json(text)
        except JobError as error:
            if str(error) != self._reported:
                self._reported = str(error)
                log.error("keeps version %d of the members: %s", self.now.version, error)
            return
        self._text, self._reported = text, ""
        log.info("follows version %d of the members: %d sites", self.now.version, len(self.now.sites))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError(f"the membership document {path} cannot be read: {reason}") from error
