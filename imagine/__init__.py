"""Imagine yourself: a few selfies of one person in, new pictures of that person out.

    from imagine import Imagine

    im = Imagine()
    with im.identity(["a.jpg", "b.jpg"]) as me:
        result = im.generate("smiling, in a forest at dawn", identity=me, n=4, seed=7)
    result.images[0].save("me.png")

Importing this package imports nothing heavy; names are fetched when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from imagine.settings import VERSION as __version__

if TYPE_CHECKING:
    from imagine.api import GeneratedImage, GenerationResult, IdentityHandle, Imagine
    from imagine.core import Identity, LikenessVerdict, PhotoReport, PhotoVerdict, Recipe
    from imagine.errors import (
        AuditLogBroken,
        BlobStoreUnusable,
        Busy,
        Cancelled,
        CertificateInvalid,
        CheckMissing,
        ConsentMissing,
        CorruptWeights,
        DatabaseUnusable,
        DataKeyDestroyed,
        DeadlineExceeded,
        DifferentPeople,
        EnrolmentRefused,
        GenerationFailed,
        IdempotencyConflict,
        ImagineError,
        InvalidInput,
        JobStillRunning,
        KeyRefused,
        LeaseLost,
        LicenceRefused,
        MarkingKeyUnusable,
        MasterKeyUnusable,
        MissingExtra,
        MissingWeights,
        NoFaceFound,
        NotMarked,
        NotStored,
        OutOfMemory,
        OutputNotWritten,
        PictureWithheld,
        PolicyTampered,
        PoorPhoto,
        PromptBlocked,
        RateLimited,
        SealBroken,
        ServiceUnreachable,
        SeveralFaces,
        SigningKeyUnusable,
        StorageError,
        UnknownName,
        UnreadableAuditLog,
        UnreadablePhoto,
        UnusableArchive,
        WatermarkNotKept,
    )
    from imagine.pipeline import Progress
    from imagine.provenance import read_recipe
    from imagine.settings import Settings

_HOMES = {
    "imagine.api": ("GeneratedImage", "GenerationResult", "IdentityHandle", "Imagine"),
    "imagine.core": ("Identity", "LikenessVerdict", "PhotoReport", "PhotoVerdict", "Recipe"),
    "imagine.errors": (
        "AuditLogBroken",
        "BlobStoreUnusable",
        "Busy",
        "Cancelled",
        "CertificateInvalid",
        "CheckMissing",
        "ConsentMissing",
        "CorruptWeights",
        "DataKeyDestroyed",
        "DatabaseUnusable",
        "DeadlineExceeded",
        "DifferentPeople",
        "EnrolmentRefused",
        "GenerationFailed",
        "IdempotencyConflict",
        "ImagineError",
        "InvalidInput",
        "JobStillRunning",
        "KeyRefused",
        "LeaseLost",
        "LicenceRefused",
        "MarkingKeyUnusable",
        "MasterKeyUnusable",
        "MissingExtra",
        "MissingWeights",
        "NoFaceFound",
        "NotMarked",
        "NotStored",
        "OutOfMemory",
        "OutputNotWritten",
        "PictureWithheld",
        "PolicyTampered",
        "PoorPhoto",
        "PromptBlocked",
        "RateLimited",
        "SealBroken",
        "ServiceUnreachable",
        "SeveralFaces",
        "SigningKeyUnusable",
        "StorageError",
        "UnknownName",
        "UnreadableAuditLog",
        "UnreadablePhoto",
        "UnusableArchive",
        "WatermarkNotKept",
    ),
    "imagine.pipeline": ("Progress",),
    "imagine.provenance": ("read_recipe",),
    "imagine.settings": ("Settings",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AuditLogBroken",
    "BlobStoreUnusable",
    "Busy",
    "Cancelled",
    "CertificateInvalid",
    "CheckMissing",
    "ConsentMissing",
    "CorruptWeights",
    "DataKeyDestroyed",
    "DatabaseUnusable",
    "DeadlineExceeded",
    "DifferentPeople",
    "EnrolmentRefused",
    "GeneratedImage",
    "GenerationFailed",
    "GenerationResult",
    "IdempotencyConflict",
    "Identity",
    "IdentityHandle",
    "Imagine",
    "ImagineError",
    "InvalidInput",
    "JobStillRunning",
    "KeyRefused",
    "LeaseLost",
    "LicenceRefused",
    "LikenessVerdict",
    "MarkingKeyUnusable",
    "MasterKeyUnusable",
    "MissingExtra",
    "MissingWeights",
    "NoFaceFound",
    "NotMarked",
    "NotStored",
    "OutOfMemory",
    "OutputNotWritten",
    "PhotoReport",
    "PhotoVerdict",
    "PictureWithheld",
    "PolicyTampered",
    "PoorPhoto",
    "Progress",
    "PromptBlocked",
    "RateLimited",
    "Recipe",
    "SealBroken",
    "ServiceUnreachable",
    "Settings",
    "SeveralFaces",
    "SigningKeyUnusable",
    "StorageError",
    "UnknownName",
    "UnreadableAuditLog",
    "UnreadablePhoto",
    "UnusableArchive",
    "WatermarkNotKept",
    "__version__",
    "read_recipe",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'imagine' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
