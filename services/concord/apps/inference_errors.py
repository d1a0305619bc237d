"""Which error of a prediction request becomes which status, and what its body says: the one table of them.

docs/inference.md shows it, the OpenAPI page lists it, and the routes answer by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from concord.errors import (
    BodyTooLargeError,
    ConcordError,
    InputError,
    MailboxError,
    MediaTypeError,
    NoModelError,
    QueueFullError,
    UnknownModelError,
)

RETRY_AFTER = 1
"""Seconds after which it is worth asking again."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status, when it is given, and which errors mean it; `again` says whether the same request may yet succeed."""

    status: int
    when: str
    errors: tuple[type[ConcordError], ...]
    again: bool = False


TABLE = (
    Refusal(404, "no such model, or no such version", (UnknownModelError,)),
    Refusal(503, "no model to answer with, or the shelf of models is out of reach", (NoModelError, MailboxError), True),
    Refusal(413, "the body is over the limit", (BodyTooLargeError,)),
    Refusal(
        415, "a kind of body that is not read: compressed, or a picture where the task has none", (MediaTypeError,)
    ),
    Refusal(429, "too many requests wait for the model", (QueueFullError,), True),
    Refusal(400, "the body or a field is wrong: which one, and what was expected", (InputError,)),
)
"""The first that an error belongs to is the one."""

ERRORS = tuple(error for refusal in TABLE for error in refusal.errors)


def refusal_of(error: ConcordError) -> Refusal:
    """The entry of one of the ERRORS."""
    return next(refusal for refusal in TABLE if isinstance(error, refusal.errors))


def headers_of(refusal: Refusal) -> dict[str, str] | None:
    """The headers that go with a refusal."""
    return {"Retry-After": str(RETRY_AFTER)} if refusal.again else None


def explain(error: ConcordError) -> Mapping[str, object]:
    """The fields of a refusal's body: `error`, and of a wrong request which `field`, and what was `expected`."""
    match error:
        case MailboxError():
            return {"error": f"the shelf of models is out of reach: {error}"}
        case QueueFullError():
            return {"error": f"too many requests wait for the model: {error}"}
        case NoModelError():
            return {"error": error.expected, "field": error.field, "expected": error.expected}
        case InputError():
            text = f"{error.field}: expected {error.expected}"
            return {"error": text, "field": error.field, "expected": error.expected}
    return {"error": str(error)}
