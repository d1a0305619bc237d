"""The stream of messages to browsers: each has a number, so that one who was away gets what it missed. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

KEPT = 120
"""Messages kept for those who come back; one who missed more gets the whole picture anew."""


@dataclass(frozen=True, slots=True)
class Message:
    """`id` is `<life of the console>-<number>`; `data` is one line of JSON."""

    id: str
    event: str
    data: str

    def to_sse(self) -> str:
        """As server-sent events have it (WHATWG HTML, 9.2)."""
        return f"id: {self.id}\nevent: {self.event}\ndata: {self.data}\n\n"


class Feed:
    """Numbers messages from 1; `life` tells the numbers of one console process from those of another."""

    def __init__(self, life: str, kept: int = KEPT) -> None:
        self.number = 0
        self._life = life
        self._messages: deque[Message] = deque(maxlen=kept)

    def publish(self, event: str, data: str) -> Message:
        """Add a message."""
        self.number += 1
        message = Message(f"{self._life}-{self.number}", event, data)
        self._messages.append(message)
        return message

    @property
    def position(self) -> str:
        """The id of the newest message."""
        return f"{self._life}-{self.number}"

    def number_of(self, id: str | None) -> int | None:
        """The number in a message's id; None if it is not one of this feed's."""
        life, _, number = (id or "").rpartition("-")
        if life != self._life or not (number.isascii() and number.isdecimal() and len(number) < 16):
            return None
        return int(number) if int(number) <= self.number else None

    def after(self, number: int) -> list[Message] | None:
        """The messages after that one; None if some of them are no longer here."""
        missed = self.number - number
        if missed > len(self._messages):
            return None
        return list(self._messages)[len(self._messages) - missed :] if missed else []
