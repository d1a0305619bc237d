"""Every error that Concord raises on purpose, in one tree; adapters translate foreign exceptions into these.

ConcordError
├── JobError                 the job file or a setting is wrong: says which key and what would be right
│   ├── TopologyError        not connected, not symmetric, unknown site, impossible degree
│   ├── CertificateError     a certificate, key or CA cannot be used: says which file and what would be right
│   ├── SplitError           the data cannot be dealt out to the sites as asked
│   └── TaskError            the model or the data cannot be built, or cannot be trained
├── EnvironmentProblem       the machine is not as needed: port in use, no Redis server, no space
├── AlgorithmError           an algorithm was driven against its contract, or its state does not fit
├── UpdateRefused            a neighbour's update that must not reach the trainer; carries a RefusalReason
├── SnapshotRefused          a published model that must not be served; carries a RefusalReason
├── IdentityError            a request does not prove that it comes from the site it names
├── TooOftenError            a caller asks more often than it may; carries the seconds until it may again
├── MailboxError             the site's own Redis cannot be reached, or refused a write
├── TransportError           a neighbour cannot be reached, or answered with something unexpected
├── ClusterError             the Kubernetes API cannot be reached, or refused; carries the HTTP status
├── CheckpointError          no usable checkpoint, or one could not be written
├── SealError                a sealed blob is torn, truncated or altered
├── QueueFullError           more prediction requests wait than there is room or time for
└── InputError               a prediction request is wrong: says which field and what was expected
    ├── BodyError            its body is not of the form it should have, or did not arrive whole
    │   ├── BodyTooLargeError
    │   └── MediaTypeError   a kind of body that is not read here
    └── NoModelError         there is no model to answer with, for now
        └── UnknownModelError    not that model, or not that version
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class ConcordError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one sentence for a person.

    `code` names the kind of error for good: `concord explain CODE` and docs/errors.md tell causes and remedies. A kind
    without one of its own has that of the kind above it.
    """

    code: ClassVar[str] = "CE-300"


class JobError(ConcordError):
    """The job file or a setting is wrong."""

    code = "CE-100"


class TopologyError(JobError):
    """The graph of sites cannot be used."""

    code = "CE-102"


class CertificateError(JobError):
    """A certificate, a key or a CA that a setting points at cannot be used."""

    code = "CE-105"


class SplitError(JobError):
    """The data cannot be dealt out to the sites as asked."""

    code = "CE-103"


class TaskError(JobError):
    """The model or the data cannot be built, or cannot be trained."""

    code = "CE-104"


class EnvironmentProblem(ConcordError):
    """The machine is not as needed; the message says what to do about it."""

    code = "CE-200"


class AlgorithmError(ConcordError):
    """An algorithm was driven against its contract, or was given state that does not fit."""

    code = "CE-306"


class RefusalReason(StrEnum):
    """Why an update was refused. The values are metric labels and appear in HTTP answers."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    CHECKSUM = "checksum"
    PROTOCOL = "protocol"
    FEDERATION = "federation"
    FINGERPRINT = "fingerprint"
    IDENTITY = "identity"
    EPOCH = "epoch"
    TERMS = "terms"
    LAYOUT = "layout"
    NOT_FINITE = "not_finite"
    ABSURD = "absurd"


NOT_ALLOWED = "not_allowed"
"""The reason in an HTTP answer to a site that is no neighbour, or speaks for another."""
REASONS = frozenset({NOT_ALLOWED, "request", *(reason.value for reason in RefusalReason)})
"""All reasons that an exchange gives in its answers to updates."""


class UpdateRefused(ConcordError):
    """A neighbour's update that must not reach the trainer; `stamp` as it says it has, if its header can be read."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.stamp: str | None = None


class SnapshotRefused(ConcordError):
    """A published model that must not be served; what was served before goes on."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class IdentityError(ConcordError):
    """A request does not prove that it comes from the site it names."""


class NotAllowed(IdentityError):
    """The sender may well be who it says, but this is not for it to do."""


class TooOftenError(ConcordError):
    """A caller asks more often than it may; `wait` is in how many seconds it may again."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class MailboxError(ConcordError):
    """The site's own Redis cannot be reached, or refused a write."""

    code = "CE-301"


class TransportError(ConcordError):
    """A neighbour cannot be reached, or answered with something unexpected."""

    code = "CE-302"


class ClusterError(ConcordError):
    """The Kubernetes API cannot be reached, or refused; `status` is its HTTP status, None if it gave no answer."""

    code = "CE-303"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class CheckpointError(ConcordError):
    """No usable checkpoint, or one could not be written; names the file and what was kept."""

    code = "CE-304"


class SealError(ConcordError):
    """A sealed blob is torn, truncated or altered."""

    code = "CE-305"


class InputError(ConcordError):
    """A prediction request is wrong."""

    code = "CE-401"

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field
        self.expected = expected


class QueueFullError(ConcordError):
    """More prediction requests wait for the model than there is room for, or this one has waited too long."""


class BodyError(InputError):
    """The body of a prediction request is not of the form it should have, or did not arrive whole."""


class BodyTooLargeError(BodyError):
    """The body of a prediction request is over the limit."""


class MediaTypeError(BodyError):
    """The body of a prediction request is of a kind that is not read here, or not for this task."""


class NoModelError(InputError):
    """There is no model to answer with, for now."""

    code = "CE-402"


class UnknownModelError(NoModelError):
    """The model asked for, or its version, is neither served here nor on the shelf."""

    code = "CE-403"
