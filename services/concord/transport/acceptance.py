"""The one way an update from a neighbour gets into the inbox, whether it was pushed or pulled.

Reads the edge table that the trainer keeps in the mailbox; knows no HTTP, no task and no job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from concord.errors import MailboxError, NotAllowed, RefusalReason, UpdateRefused
from concord.site.edges import NOTE_EDGES, EdgeTable
from concord.site.expectation import expect
from concord.site.journey import Journey, Step
from concord.site.ports import Box, Mailbox, Receipt, Slot
from concord.transport.offload import offload
from concord.transport.traffic import ExchangeState
from concord.wire.codec import Expectation, measure
from concord.wire.messages import Stamp, Update
from concord.wire.sanity import FACTOR, Scales

TABLE_AGE = 1.0
"""Seconds the edge table is believed without another look."""
DISPUTED_TABLE_AGE = 0.05
"""The same when an update does not fit the table: the trainer may just have changed it."""
_DISPUTES = frozenset(
    {
        RefusalReason.TOO_LARGE,
        RefusalReason.FEDERATION,
        RefusalReason.FINGERPRINT,
        RefusalReason.EPOCH,
        RefusalReason.TERMS,
        RefusalReason.LAYOUT,
    }
)


class NoEdgeTableError(MailboxError):
    """The site's trainer has not yet said what its edges are."""


class EdgeBook:
    """The edge table as last read from the mailbox, and what it makes this site expect of each neighbour."""

    def __init__(
        self, mailbox: Mailbox, site: str, max_bytes: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._mailbox = mailbox
        self._site = site
        self._max_bytes = max_bytes
        self._clock = clock
        self._text: str | None = None
        self._expectations: dict[str, Expectation] | None = None
        self._own_scales: Mapping[str, float] = {}
        self._seen: dict[str, Stamp] = {}
        self._read_at = -TABLE_AGE

    async def expectation(self, neighbour: str, max_age: float = TABLE_AGE) -> Expectation:
        """What an update from `neighbour` must be like.

        NotAllowed if it is no neighbour, NoEdgeTableError if there is no table, MailboxError if it cannot be
        read.
        """
        expectations = await self._fresh(max_age)
        if neighbour not in expectations:
            expectations = await self._fresh(min(max_age, DISPUTED_TABLE_AGE))
        if neighbour not in expectations:
            raise NotAllowed(f"{neighbour[:64]!r} is not a neighbour of {self._site}")
        return expectations[neighbour]

    @property
    def own_scales(self) -> Mapping[str, float]:
        """How large the numbers are that this site sends, by part, as the table last read says."""
        return self._own_scales

    def seen(self, neighbour: str) -> Stamp | None:
        """The newest update of `neighbour` that the trainer had taken in when the table was last read."""
        return self._seen.get(neighbour)

    async def refresh(self) -> None:
        """Look at the table now; errors as `expectation`, but for NotAllowed."""
        await self._fresh(0.0)

    async def _fresh(self, max_age: float) -> dict[str, Expectation]:
        if self._expectations is None:
            max_age = min(max_age, DISPUTED_TABLE_AGE)
        if self._clock() - self._read_at >= max_age:
            self._learn(await self._mailbox.read_note(NOTE_EDGES))
            self._read_at = self._clock()
        if self._expectations is None:
            raise NoEdgeTableError(f"the trainer of {self._site} has not published its edges yet")
        return self._expectations

    def _learn(self, text: str | None) -> None:
        # An emptied mailbox does not undo what the trainer said: it will say so again, or anew.
        if text is None or text == self._text:
            return
        try:
            table = EdgeTable.from_json(text)
            seen = {neighbour: Stamp.parse(stamp) for neighbour, stamp in table.seen.items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MailboxError(f"the edge table in the mailbox of {self._site} cannot be read") from error
        self._expectations = {
            neighbour: expect(table, neighbour, self._site, self._max_bytes) for neighbour in table.edges
        }
        self._own_scales = table.scales
        self._seen = seen
        self._text = text


class Acceptance:
    """Checks updates from neighbours and stores them; counts what it stores and what it refuses.

    `clock` gives seconds since the Unix epoch. One whose numbers are over `absurd_factor` times what the edge knows is
    refused (None: never).
    """

    def __init__(
        self,
        mailbox: Mailbox,
        book: EdgeBook,
        state: ExchangeState,
        clock: Callable[[], float] = time.time,
        absurd_factor: float | None = FACTOR,
        journey: Journey | None = None,
    ) -> None:
        self._journey = journey or Journey()
        self._mailbox = mailbox
        self._book = book
        self._state = state
        self._clock = clock
        self._absurd_factor = absurd_factor
        self._scales: dict[str, Scales] = {}

    async def limit(self, neighbour: str) -> int:
        """The most bytes an update from `neighbour` may have; errors as `EdgeBook.expectation`."""
        return (await self._book.expectation(neighbour)).max_bytes

    async def accept(self, neighbour: str, blob: bytes) -> Receipt:
        """Check an update and store it if newer; UpdateRefused, or errors as `EdgeBook.expectation`."""
        began = time.monotonic()
        traffic = self._state.edges[neighbour]
        traffic.bytes_in += len(blob)
        stamp = None
        try:
            update, sizes = await self._measure(neighbour, blob)
            stamp = update.header.stamp
            if self._absurd_factor is not None:
                scales = self._scales.setdefault(neighbour, Scales(self._absurd_factor))
                scales.check(sizes, self._book.own_scales, self._clock())
        except UpdateRefused as refusal:
            self.refuse(neighbour, refusal, stamp)
            raise
        receipt = await self._store(neighbour, Slot(update.header.stamp, blob))
        if receipt.stored:
            traffic.received += 1
            traffic.age.observe(max(0.0, self._clock() - update.header.sent_at))
            self._journey.incoming(Step.STORED, neighbour, update.header.stamp, time.monotonic() - began)
        else:
            traffic.known += 1
        return receipt

    async def _store(self, neighbour: str, slot: Slot) -> Receipt:
        # An inbox that lost what the trainer took in would store what the trainer then passes over as old, and a
        # neighbour that lost its state would never learn that it must go on above what it once sent.
        seen = self._book.seen(neighbour)
        if seen is not None and slot.stamp < seen:
            return Receipt(stored=False, newest=seen)
        return await self._mailbox.put(Box.INBOX, neighbour, slot)

    def refuse(self, neighbour: str, refusal: UpdateRefused, stamp: Stamp | None = None) -> None:
        """Count a refusal, and tell of it."""
        self._journey.incoming_refused(neighbour, refusal, stamp)
        traffic = self._state.edges[neighbour]
        traffic.refused[refusal.reason] += 1
        traffic.last_error = f"refused an update: {refusal}"

    async def _measure(self, neighbour: str, blob: bytes) -> tuple[Update, dict[str, float]]:
        expected = await self._book.expectation(neighbour)
        try:
            return await offload(len(blob), measure, blob, expected)
        except UpdateRefused as refusal:
            if refusal.reason not in _DISPUTES:
                raise
            fresh = await self._book.expectation(neighbour, DISPUTED_TABLE_AGE)
            if fresh == expected:
                raise
        return await offload(len(blob), measure, blob, fresh)
