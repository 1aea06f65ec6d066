from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.core import ImageArray
from imagine.errors import UnreadablePhoto
from imagine.provenance import Marking, PhotoOrigin, Verifier, open_marker, open_verifier
from imagine.provenance.origin import photo_origin


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("installation") / "marks"


@pytest.fixture(scope="module")
def picture() -> ImageArray:
    random = np.random.default_rng(3)
    small = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    return np.asarray(small.resize((320, 320), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def ours(folder: Path, picture: ImageArray) -> bytes:
    marker, _ = open_marker(folder)
    return Marking(marker, lambda facts: 9, "0" * 64)(picture, None).to_bytes(".png")


def saved(picture: ImageArray, **words: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90, **words)
    return buffer.getvalue()


def test_our_marks_are_told_from_files_and_from_pixels(folder: Path, ours: bytes) -> None:
    verifier = open_verifier(folder)
    pixels = np.asarray(Image.open(BytesIO(ours)).convert("RGB"))
    for photo in (ours, pixels, saved(pixels)):
        assert photo_origin(photo, verifier) is PhotoOrigin.OWN_OUTPUT


def test_without_our_keys_a_claim_is_all_there_is(ours: bytes, picture: ImageArray) -> None:
    term = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    claim = saved(picture, xmp=b"<x:xmpmeta>" + term + b"</x:xmpmeta>")
    assert photo_origin(claim, Verifier()) is PhotoOrigin.TRAINED_ALGORITHMIC_MEDIA
    assert photo_origin(ours, Verifier()) is PhotoOrigin.UNKNOWN  # a sheet: a composite


def test_a_photo_that_says_nothing_is_unknown(folder: Path, picture: ImageArray) -> None:
    assert photo_origin(saved(picture), open_verifier(folder)) is PhotoOrigin.UNKNOWN
    assert photo_origin(picture, open_verifier(folder)) is PhotoOrigin.UNKNOWN


def test_a_plain_photo_loads_no_library_of_manifests(
    picture: ImageArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)  # importing it would raise
    assert photo_origin(saved(picture), Verifier()) is PhotoOrigin.UNKNOWN


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff\xd8\xff\xe0 cut off"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadablePhoto):
        photo_origin(data, Verifier())
