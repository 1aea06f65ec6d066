from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.errors import InvalidInput, NotMarked
from imagine.provenance import (
    MarkedImage,
    Marker,
    Provenance,
    RecipeNote,
    Verifier,
    mark_image,
    open_marker,
    read_recipe,
)
from imagine.provenance.rewriting import rewritten
from imagine.provenance.watermark_report import drawing
from tests.provenance.conftest import AUDIT, RECIPE

SUFFIXES = [".png", ".jpg", ".webp"]


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("made", SUFFIXES)
@pytest.mark.parametrize("wanted", SUFFIXES)
def test_every_format_becomes_every_other_with_all_its_marks(
    sealed: MarkedImage, marker: Marker, verifier: Verifier, made: str, wanted: str
) -> None:
    before = sealed.to_bytes(made, RecipeNote.NONE)
    after = rewritten(before, wanted, marker.identity)
    report = verifier.verify(after)
    assert (report.verdict, report.record) == (Provenance.UNTOUCHED, AUDIT.record)
    assert report.watermark_found and b"on the moon" not in after
    # Written once more, not marked once more: a lossy format's own change is all there is.
    if wanted == ".png":
        assert (pixels_of(before) == pixels_of(after)).all()
    elif made == ".png":
        once = sealed.to_bytes(wanted, RecipeNote.NONE)
        assert (pixels_of(once) == pixels_of(after)).all()
    stripped = io.BytesIO()
    Image.fromarray(pixels_of(after)).save(stripped, "JPEG", quality=75)
    bare = verifier.verify(stripped.getvalue())
    assert (bare.verdict, bare.record) == (Provenance.STRIPPED, AUDIT.record)


@pytest.mark.parametrize("wanted", SUFFIXES)
def test_the_recipe_goes_inside_when_its_owner_wants_that(
    sealed: MarkedImage, marker: Marker, marks: Path, wanted: str
) -> None:
    before = sealed.to_bytes(".png", RecipeNote.NONE)
    told = rewritten(before, wanted, marker.identity, RECIPE, RecipeNote.OPEN)
    assert read_recipe(told) == RECIPE
    shut = rewritten(before, wanted, marker.identity, RECIPE, RecipeNote.SEALED, marker.box)
    assert b"on the moon" not in shut and read_recipe(shut, marks) == RECIPE
    with pytest.raises(InvalidInput, match="key to seal"):
        rewritten(before, wanted, marker.identity, RECIPE, RecipeNote.SEALED)


def foreign(sealed: MarkedImage, tmp_path: Path) -> bytes:
    other, _ = open_marker(tmp_path / "elsewhere" / "marks")
    return mark_image(drawing(2, 128), None, other, AUDIT).to_bytes(".png")


def changed(sealed: MarkedImage, tmp_path: Path) -> bytes:
    data = bytearray(sealed.to_bytes(".jpg"))
    data[-200] ^= 1
    return bytes(data)


def plain(sealed: MarkedImage, tmp_path: Path) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(sealed.pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("make", [foreign, changed, plain, lambda *_: b"milk", lambda *_: b""])
def test_nothing_else_gets_our_signature_this_way(
    sealed: MarkedImage, marker: Marker, tmp_path: Path, make: object
) -> None:
    data = make(sealed, tmp_path)  # type: ignore[operator]
    with pytest.raises(NotMarked):
        rewritten(data, ".png", marker.identity)
