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
│   ├── NotStored           no such thing here, or it is another tenant's
│   ├── ConsentTokenInvalid a consent token that is not ours, too old, or for another text
│   │   └── ConsentTokenUsed a consent token that came before
│   ├── UnsafeAddress       a webhook to an address that is not public
│   ├── WebhookInvalid      a webhook that was not signed by its sender, or is too old
│   │   └── WebhookReplayed a webhook that came before
│   ├── UnusableArchive     not an export of ours, or not a safe one
│   ├── CertificateInvalid  a deletion certificate that was not signed by this key
│   ├── EvidenceInvalid     an evidence file that was changed, or is not signed by this log
│   └── UnreadableAuditLog  a file that is no export or checkpoint of an audit log
├── ConsentMissing          the person has not agreed to this, or not any more
├── KeyRefused              an API key is unknown, revoked, expired or may not do this
│   ├── SignInRefused       a login or token of a person's organisation is not good here
│   └── ForgedRequest       another site made the browser ask, or no page of ours did
├── PromptBlocked           the wish is not one we fulfil
├── PictureWithheld         what was drawn may not leave; says which check holds it
├── EnrolmentRefused        these photos may not become an identity
├── ReviewPending           a reviewer has to look at this identity first
├── ReviewRefused           this reviewer may not do this, or not alone
├── PolicyTampered          the safety policy or its models are not the approved ones
├── Cancelled               the caller asked us to stop
├── Busy                    too much work waits; says when to come back
│   └── RateLimited         this key, tenant or address asked too often
├── ServiceUnreachable      the service did not answer, or failed on its side
├── JobStillRunning         the request of this idempotency key is being worked on
├── LeaseLost               another worker took this job over, or it has ended
├── DeadlineExceeded        not done before the caller's deadline
├── GenerationFailed        the model failed on this picture alone (NaN, a broken forward)
│   └── OutOfMemory         the device has no room even for this one picture
├── MissingExtra            an optional package is not installed
│   └── CheckMissing        a safety check cannot run, so nothing is made
├── MissingWeights          weights are not on this machine
├── CorruptWeights          weights are here but cannot be used
├── LicenceRefused          some weights may not be used in this licence mode; prints the chain
├── NotMarked               a picture could not be given its marks, so it does not leave
│   ├── WatermarkNotKept    the invisible watermark did not read back from this picture
│   └── MarkingKeyUnusable  a key or certificate of the marks is missing, damaged or open to others
├── OutputNotWritten        the disk refused the picture; nothing half-written is left
└── StorageError            what is kept cannot be used
    ├── DatabaseUnusable    the database does not answer, or is busy, or is of another version
    ├── BlobStoreUnusable   the place of the pictures does not answer or has lost one
    ├── MasterKeyUnusable   the master key is missing, malformed or another one
    ├── DataKeyDestroyed    what is asked for was erased: its key is gone for good
    ├── SealBroken          sealed bytes were changed, or moved to another place
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


class IdempotencyConflict(InvalidInput):
    """An idempotency key was used before, for a request with another body."""


class UnreadableAuditLog(InvalidInput):
    """A file that is not an export or a checkpoint of an audit log."""


class NotStored(InvalidInput):
    """Nothing of this name is here for this tenant; what others have is not told apart."""


class ConsentTokenInvalid(InvalidInput):
    """A consent token this service did not issue, or not for this text, or too long ago."""


class ConsentTokenUsed(ConsentTokenInvalid):
    """A consent token that was used before; each is good for one consent."""


class UnsafeAddress(InvalidInput):
    """An address of a webhook that leads into a private network."""


class WebhookInvalid(InvalidInput):
    """A webhook whose signature or time is not right; do nothing of what it says."""


class WebhookReplayed(WebhookInvalid):
    """A webhook with a good signature that came before; it was acted on then."""


class UnusableArchive(InvalidInput):
    """A zip that is no export of ours, or that is built to do harm."""


class CertificateInvalid(InvalidInput):
    """A deletion certificate that is malformed or was not signed by the given key."""


class EvidenceInvalid(InvalidInput):
    """An evidence file that does not hold what its log vouches for; the message names the part."""

    exit_code = 10


class ConsentMissing(ImagineError):
    """The person has not agreed to this purpose, or the agreement ended."""

    exit_code = 10


class KeyRefused(ImagineError):
    """An API key that is unknown, revoked or expired, or lacks the scope.

    Attributes:
        lacks_scope: the key itself is good; it may just not do this.
    """

    exit_code = 11

    def __init__(self, message: str, lacks_scope: bool = False) -> None:
        super().__init__(message)
        self.lacks_scope = lacks_scope


class SignInRefused(KeyRefused):
    """A login that does not fit its start, or a token the issuer did not sign for this service."""


class ForgedRequest(KeyRefused):
    """A change by cookie that no page of this service asked for."""


class PromptBlocked(ImagineError):
    """A wish that policy does not allow.

    Attributes:
        category: machine name of what was asked for.
        clause: clause of the published policy.
        rule: id of the rule that matched.
        policy_hash: SHA-256, hex, of the policy.
        incident: the attempt itself must be reported to whoever looks after incidents.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        category: str = "",
        clause: str = "",
        rule: str = "",
        policy_hash: str = "",
        incident: bool = False,
    ) -> None:
        super().__init__(message)
        self.category = category
        self.clause = clause
        self.rule = rule
        self.policy_hash = policy_hash
        self.incident = incident


class PictureWithheld(ImagineError):
    """What was drawn did not pass the output checks; none of it leaves."""

    exit_code = 4


class EnrolmentRefused(ImagineError):
    """Photos that may not become an identity.

    Attributes:
        code: stable machine name of the reason, e.g. "machine_made".
    """

    exit_code = 4

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ReviewPending(ImagineError):
    """Nothing may be made of an identity before a reviewer has looked at it."""

    exit_code = 4


class ReviewRefused(ImagineError):
    """A reviewer may not decide this or look at it, or not without a second one.

    Attributes:
        code: stable machine name of the reason, e.g. "second_reviewer_needed".
    """

    exit_code = 11

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class PolicyTampered(ImagineError):
    """A safety policy, threshold or model file that nobody approved."""

    exit_code = 5


class Cancelled(ImagineError):
    """The caller asked to stop before the picture was finished."""

    exit_code = 130


class Busy(ImagineError):
    """Too much work waits already; nothing was accepted.

    Attributes:
        retry_after_seconds: when there should be room.
    """

    exit_code = 7

    # The default lets it be pickled like other exceptions; its attribute travels with it.
    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RateLimited(Busy):
    """One key, tenant or address asked more often than it may; the service has room for others."""


class ServiceUnreachable(ImagineError):
    """The service did not answer, or failed on its side; the message has the request id."""

    exit_code = 14


class JobStillRunning(ImagineError):
    """A request came again while its job is being worked on; ask for the job instead.

    Attributes:
        job_id: the job of the first request.
    """

    exit_code = 7

    def __init__(self, message: str, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class LeaseLost(ImagineError):
    """This worker may not change the job any more: discard what was made for it."""

    exit_code = 7


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


class CheckMissing(MissingExtra):
    """A safety check that cannot run; nothing is made until it can or is switched off."""


class MissingWeights(ImagineError):
    """Weights are not on this machine; the message has the command that gets them."""

    exit_code = 5


class CorruptWeights(ImagineError):
    """Weights exist but cannot be loaded."""

    exit_code = 5


class NotMarked(ImagineError):
    """A picture that could not be marked; it must not leave."""

    exit_code = 12


class WatermarkNotKept(NotMarked):
    """A picture in which the invisible watermark cannot be read back."""


class MarkingKeyUnusable(NotMarked):
    """A watermark key, signing key or certificate that cannot be used."""


class LicenceRefused(ImagineError):
    """A part's weights are not for commercial use, and the licence mode says permissive."""

    exit_code = 13


class OutputNotWritten(ImagineError):
    """A result could not be written; no partial file is left behind."""

    exit_code = 6


class StorageError(ImagineError):
    """What is kept cannot be used."""

    exit_code = 9


class DatabaseUnusable(StorageError):
    """The database does not answer, is busy or is of another version."""


class BlobStoreUnusable(StorageError):
    """The place of the sealed files does not answer, or a file that should be there is not."""


class MasterKeyUnusable(StorageError):
    """The master key is missing, malformed or not the one the data keys were wrapped with."""


class DataKeyDestroyed(StorageError):
    """The data key was destroyed by an erasure; what it sealed can never be read again."""


class SealBroken(StorageError):
    """Sealed bytes do not open: changed, cut, or put in another place than they were sealed for."""


class SigningKeyUnusable(StorageError):
    """The key of the audit log is missing, another one, or open to others."""


class AuditLogBroken(StorageError):
    """The audit log is not what was signed; the message names the first bad entry."""

    exit_code = 10
