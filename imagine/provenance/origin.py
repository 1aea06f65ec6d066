"""Whether a photo says that a machine made it: by our marks, or by what its metadata claims.

Asked of photos before somebody is made known by them, so it is quick: nothing is judged but that.
"""

from __future__ import annotations

import re
from enum import StrEnum

from imagine.core import ImageArray
from imagine.provenance.verify import Provenance, Verifier, open_picture

# The very term of IPTC, in XMP and in manifests alike. "compositeWithTrainedAlgorithmicMedia" is
# what telephones write after a retouched corner, and is no reason to doubt a face.
_TRAINED = re.compile(rb"digitalsourcetype/trainedAlgorithmicMedia")
_MANIFEST = b"jumb"  # the box type every C2PA manifest begins with
_OURS = (Provenance.UNTOUCHED, Provenance.STRIPPED, Provenance.EDITED)


class PhotoOrigin(StrEnum):
    """Where a photo comes from, as far as it tells."""

    UNKNOWN = "unknown"
    OWN_OUTPUT = "own_output"
    TRAINED_ALGORITHMIC_MEDIA = "trainedAlgorithmicMedia"


def photo_origin(photo: bytes | ImageArray, verifier: Verifier) -> PhotoOrigin:
    """Say whether a machine made a photo.

    Args:
        photo: the bytes of a PNG, JPEG or WebP file; or (height, width, 3) uint8 RGB, whose
            pixels are all that is looked at.
        verifier: knows our marks; one without keys reads only what others say.

    Raises:
        UnreadablePhoto: the bytes are no such file.
    """
    if not isinstance(photo, bytes):
        return PhotoOrigin.OWN_OUTPUT if _watermarked(photo, verifier) else PhotoOrigin.UNKNOWN
    _, pixels, xmp = open_picture(photo)
    # A manifest is opened only where there is one: its library takes a second to load.
    signed = _MANIFEST in photo and verifier.verify(photo).verdict in _OURS
    if signed or _watermarked(pixels, verifier):
        return PhotoOrigin.OWN_OUTPUT
    if _TRAINED.search(photo) or _TRAINED.search(xmp.encode()):
        return PhotoOrigin.TRAINED_ALGORITHMIC_MEDIA
    return PhotoOrigin.UNKNOWN


def _watermarked(pixels: ImageArray, verifier: Verifier) -> bool:
    watermarks = (verifier.watermark, verifier.learned)
    return any(one is not None and one.read(pixels) is not None for one in watermarks)
