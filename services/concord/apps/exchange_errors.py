"""Which error of a request to the exchange becomes which status, and what the answer says of it.

Must not know routes, nor what is done for a request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from fastapi import Response

from concord.errors import (
    NOT_ALLOWED,
    ConcordError,
    IdentityError,
    InputError,
    MailboxError,
    NotAllowed,
    RefusalReason,
    TooOftenError,
    UpdateRefused,
)
from concord.wire.codec import Expectation

REFUSAL_STATUS: Mapping[RefusalReason, int] = {
    RefusalReason.TOO_LARGE: 413,
    RefusalReason.MALFORMED: 422,
    RefusalReason.CHECKSUM: 422,
    RefusalReason.PROTOCOL: 422,
    RefusalReason.FEDERATION: 409,
    RefusalReason.FINGERPRINT: 409,
    RefusalReason.IDENTITY: 403,
    RefusalReason.EPOCH: 409,
    RefusalReason.TERMS: 409,
    RefusalReason.LAYOUT: 422,
    RefusalReason.NOT_FINITE: 422,
    RefusalReason.ABSURD: 422,
}

ERROR_STATUS: tuple[tuple[type[ConcordError], int, str], ...] = (
    (NotAllowed, 403, NOT_ALLOWED),
    (IdentityError, 401, "identity"),
    (TooOftenError, 429, "too_often"),
    (InputError, 400, "request"),
    (MailboxError, 503, "unavailable"),
)
"""First match wins."""


def refusal_of(refusal: UpdateRefused, expected: Expectation | None) -> Response:
    """The answer to an update that is refused; where the two ends disagree, with what this one holds for right."""
    body: dict[str, object] = {"reason": refusal.reason.value, "detail": refusal.detail}
    status = REFUSAL_STATUS[refusal.reason]
    if status == 409 and expected is not None:
        body["expected"] = _right_values(expected)[refusal.reason]
    return json_of(status, body)


def _right_values(expected: Expectation) -> dict[RefusalReason, object]:
    terms = {"penalty": expected.terms.penalty, "averaging": expected.terms.averaging}
    return {
        RefusalReason.FEDERATION: expected.federation,
        RefusalReason.FINGERPRINT: expected.fingerprint,
        RefusalReason.EPOCH: expected.epoch,
        RefusalReason.TERMS: {"algorithm": expected.algorithm, **terms},
    }


def json_of(status: int, fields: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(json.dumps(fields), status, headers, "application/json")
