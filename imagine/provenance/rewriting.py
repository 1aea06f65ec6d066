"""One of our own finished files in another format: same pixels, watermark and record, signed anew.

Takes nothing but a file that was signed here and not changed since. So this is a window in the one
door and not a second door: no other picture gets our marks this way, and no second watermark is
laid over the first.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from imagine.core import Recipe
from imagine.errors import NotMarked
from imagine.provenance.c2pa_manifest import SigningIdentity, read_manifest
from imagine.provenance.mark import MarkedImage, Seal
from imagine.provenance.recipe_note import RecipeBox, RecipeNote


def rewritten(
    data: bytes,
    suffix: str,
    identity: SigningIdentity,
    recipe: Recipe | None = None,
    note: RecipeNote = RecipeNote.NONE,
    box: RecipeBox | None = None,
) -> bytes:
    """The same picture as another file.

    Args:
        data: PNG, JPEG or WebP as it was written here.
        suffix: ".png", ".jpg" or ".webp".
        identity: who signed it and signs it again.
        recipe: how it was made, for a note that tells it.
        note: who may read the recipe in the new file.
        box: seals the recipe; goes with a note that says so.

    Raises:
        InvalidInput: another suffix; a note without the box it needs.
        NotMarked: the file is not ours, or was changed since; or it could not be signed.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            kind, pixels = str(picture.format), np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise NotMarked(
            f"These {len(data)} bytes are no picture that was finished here. Make it again."
        ) from error
    reading = read_manifest(data, kind, identity)
    if reading is None or not (reading.ours and reading.intact) or reading.facts is None:
        raise NotMarked(
            "Only a file that was signed here and not changed since can be written in another "
            "format; this one is not. Take it as it is, or make the picture again."
        )
    facts = replace(reading.facts, installation=identity.name)
    return MarkedImage(pixels, recipe, Seal(identity, facts), note, box).to_bytes(suffix)
