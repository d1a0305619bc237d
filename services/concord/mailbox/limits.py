"""How much a mailbox keeps, and for how long: the same for every kind of mailbox."""

from __future__ import annotations

from dataclasses import dataclass

from concord.errors import MailboxError


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """What a mailbox refuses, and when it forgets.

    `ttl_seconds`: a slot that nothing was put into for so long is emptied, so that what sites long gone left
    behind does not stay. `max_slot_bytes`: a larger update is refused. `max_total_bytes`: a put that would
    bring all slots together over it is refused.
    """

    ttl_seconds: float = 86_400.0
    max_slot_bytes: int = 256 << 20
    max_total_bytes: int = 4 << 30

    def check_slot(self, size: int) -> None:
        """MailboxError if a slot may not hold `size` bytes."""
        if size > self.max_slot_bytes:
            raise MailboxError(f"an update of {size} bytes is over a slot's limit of {self.max_slot_bytes}")

    def over_total(self, size: int) -> MailboxError:
        """The error for a put of `size` bytes that the mailbox as a whole has no room for."""
        return MailboxError(
            f"an update of {size} bytes would bring the mailbox over its limit of {self.max_total_bytes}"
        )
