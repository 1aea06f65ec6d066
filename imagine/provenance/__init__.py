"""How a picture says where it came from."""

from imagine.provenance.badge import Badge, Corner
from imagine.provenance.c2pa_manifest import SigningIdentity
from imagine.provenance.mark import MarkedImage, mark_image, read_recipe, refuse_unwritable
from imagine.provenance.marker import AuditReference, Marker, open_marker
from imagine.provenance.marking import AppendEntry, Marking
from imagine.provenance.registry import HashRegistry, PerceptualHash, perceptual_hash
from imagine.provenance.signing import MARKS_FOLDER, MarkingKeys, identity_of, operator_identity
from imagine.provenance.verify import (
    Provenance,
    ProvenanceReport,
    Verifier,
    open_verifier,
    verify,
)
from imagine.provenance.watermark import WATERMARKS, Watermark, WatermarkReading

__all__ = [
    "MARKS_FOLDER",
    "WATERMARKS",
    "AppendEntry",
    "AuditReference",
    "Badge",
    "Corner",
    "HashRegistry",
    "MarkedImage",
    "Marker",
    "Marking",
    "MarkingKeys",
    "PerceptualHash",
    "Provenance",
    "ProvenanceReport",
    "SigningIdentity",
    "Verifier",
    "Watermark",
    "WatermarkReading",
    "identity_of",
    "mark_image",
    "open_marker",
    "open_verifier",
    "operator_identity",
    "perceptual_hash",
    "read_recipe",
    "refuse_unwritable",
    "verify",
]
