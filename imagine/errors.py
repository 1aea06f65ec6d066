"""Every error we raise on purpose.

ImagineError
├── InvalidInput            the caller can mend it: wrong argument, wrong file
│   ├── UnknownName         no such backend, encoder, style
│   ├── UnreadablePhoto     a file that is not a photo we can decode safely
│   ├── NoFaceFound         a selfie shows no usable face
│   ├── SeveralFaces        a selfie shows several faces and none was chosen
│   ├── PoorPhoto           the face is there, but too small, blurred, turned or cut
│   ├── DifferentPeople     the selfies are not of one person
│   ├── IdempotencyConflict an idempotency key came back with another request
│   └── UnreadableAuditLog  a file that is no export or checkpoint of an audit log
├── PromptBlocked           the wish is not one we fulfil
├── Cancelled               the caller asked us to stop
├── Busy                    too much work waits; says when to come back
├── JobStillRunning         the request of this idempotency key is being worked on
├── LeaseLost               another worker took this job over, or it has ended
├── DeadlineExceeded        not done before the caller's deadline
├── GenerationFailed        the model failed on this picture alone (NaN, a broken forward)
│   └── OutOfMemory         the device has no room even for this one picture
├── MissingExtra            an optional package is not installed
├── MissingWeights          weights are not on this machine
├── CorruptWeights          weights are here but cannot be used
├── OutputNotWritten        the disk refused the picture; nothing half-written is left
└── StorageError            what is kept cannot be used
    ├── DatabaseUnusable    the database does not answer, or is busy, or is of another version
    ├── SigningKeyUnusable  the key of the audit log is missing, another, or open to others
    └── AuditLogBroken      the audit log was changed behind our back; names the first bad entry

Every message says what happened, with which value, and what to do next.
Each class carries the exit status of the command line (`exit_code`).
"""

from __future__ import annotations


class ImagineError(Exception):
    """Base of all errors raised on purpose by this package."""

    exit_code = 1


class InvalidInput(ImagineError):
    """An argument or file the caller can correct."""

    exit_code = 2


class UnknownName(InvalidInput):
    """A name that no registry knows."""


class UnreadablePhoto(InvalidInput):
    """A file that is not a photo we can decode safely."""


class NoFaceFound(InvalidInput):
    """A selfie without a face that could be used."""

    exit_code = 3


class SeveralFaces(InvalidInput):
    """A selfie with several faces and nobody said which."""

    exit_code = 3


class PoorPhoto(InvalidInput):
    """A selfie whose face is too small, blurred, dark, turned or cut off."""

    exit_code = 3


class DifferentPeople(InvalidInput):
    """Selfies that do not show one person."""

    exit_code = 3


class PromptBlocked(ImagineError):
    """A wish that policy does not allow."""

    exit_code = 4


class Cancelled(ImagineError):
    """The caller asked to stop before the picture was finished."""

    exit_code = 130


class Busy(ImagineError):
    """Too much work waits already; nothing was accepted.

    Attributes:
        retry_after_seconds: when there should be room.
    """

    exit_code = 7

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(ImagineError):
    """The picture was not finished before the caller's deadline; nothing was kept."""

    exit_code = 7


class GenerationFailed(ImagineError):
    """The model failed on this picture; others in the same batch are not touched."""

    exit_code = 8


class OutOfMemory(GenerationFailed):
    """The device has no room even for this picture alone."""


class MissingExtra(ImagineError):
    """An optional package is not installed; the message has the pip command."""

    exit_code = 5


class MissingWeights(ImagineError):
    """Weights are not on this machine; the message has the command that gets them."""

    exit_code = 5


class CorruptWeights(ImagineError):
    """Weights exist but cannot be loaded."""

    exit_code = 5


class OutputNotWritten(ImagineError):
    """A result could not be written; no partial file is left behind."""

    exit_code = 6


class StorageError(ImagineError):
    """What is kept cannot be used."""

    exit_code = 9


class DatabaseUnusable(StorageError):
    """The database does not answer, is busy or is of another version."""
