"""How a picture says where it came from."""

from imagine.provenance.badge import Badge, Corner
from imagine.provenance.c2pa_manifest import SigningIdentity
from imagine.provenance.mark import MarkedImage, mark_image, read_recipe, refuse_unwritable
from imagine.provenance.marker import AuditReference, Marker, open_marker
from imagine.provenance.marking import AppendEntry, AppendKind, Marking, make_marking
from imagine.provenance.origin import PhotoOrigin, photo_origin
from imagine.provenance.recipe_note import RecipeBox, RecipeNote
from imagine.provenance.registry import HashFile, HashRegistry, PerceptualHash, perceptual_hash
from imagine.provenance.signing import MARKS_FOLDER, MarkingKeys, identity_of, operator_identity
from imagine.provenance.verify import (
    HASHES_FILE,
    Provenance,
    ProvenanceReport,
    Verifier,
    open_verifier,
    verify,
)
from imagine.provenance.watermark import WATERMARKS, Watermark, WatermarkReading

__all__ = [
    "HASHES_FILE",
    "MARKS_FOLDER",
    "WATERMARKS",
    "AppendEntry",
    "AppendKind",
    "AuditReference",
    "Badge",
    "Corner",
    "HashFile",
    "HashRegistry",
    "MarkedImage",
    "Marker",
    "Marking",
    "MarkingKeys",
    "PerceptualHash",
    "PhotoOrigin",
    "Provenance",
    "ProvenanceReport",
    "RecipeBox",
    "RecipeNote",
    "SigningIdentity",
    "Verifier",
    "Watermark",
    "WatermarkReading",
    "identity_of",
    "make_marking",
    "mark_image",
    "open_marker",
    "open_verifier",
    "operator_identity",
    "perceptual_hash",
    "photo_origin",
    "read_recipe",
    "refuse_unwritable",
    "verify",
]
