from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.errors import NotMarked
from imagine.provenance import open_marker
from imagine.provenance.c2pa_manifest import (
    ManifestFacts,
    SigningIdentity,
    read_manifest,
    sign_picture,
)
from imagine.provenance.marker import Marker
from imagine.provenance.watermark_report import drawing

FACTS = ManifestFacts(
    "trainedAlgorithmicMedia", 77, "fake-1", "ab" * 32, "cd" * 32, "ef" * 32, "an installation"
)
KINDS = ["PNG", "JPEG", "WEBP"]


def plain(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawing(2, 128)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def identity(marker: Marker) -> SigningIdentity:
    return marker.identity


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_signed_reads_back_as_ours(identity: SigningIdentity, kind: str) -> None:
    reading = read_manifest(sign_picture(plain(kind), kind, identity, FACTS), kind, identity)
    assert reading is not None and reading.intact and reading.ours and reading.says_us
    assert reading.says_generated and reading.facts == FACTS and reading.problems == ()


@pytest.mark.parametrize("kind", KINDS)
def test_signing_leaves_the_pixels_and_adds_no_thumbnail(
    identity: SigningIdentity, kind: str
) -> None:
    before = plain(kind)
    after = sign_picture(before, kind, identity, FACTS)
    one, other = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (before, after)
    )
    assert np.array_equal(one, other) and len(after) - len(before) < 16_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_picture_is_noticed(identity: SigningIdentity, kind: str) -> None:
    reading = read_manifest(
        sign_picture(plain(kind), kind, identity, FACTS) + b"more", kind, identity
    )
    assert reading is not None and not reading.intact and reading.ours
    assert "assertion.dataHash.mismatch" in reading.problems


def test_an_unsigned_picture_has_no_reading(identity: SigningIdentity) -> None:
    assert read_manifest(plain("PNG"), "PNG", identity) is None


def test_another_installations_signature_is_intact_but_not_ours(
    identity: SigningIdentity, tmp_path: Path
) -> None:
    other = open_marker(tmp_path / "marks")[0].identity
    data = sign_picture(plain("PNG"), "PNG", other, FACTS)
    reading, unasked = read_manifest(data, "PNG", identity), read_manifest(data, "PNG")
    assert reading is not None and reading.intact and not reading.ours
    assert unasked is not None and unasked.intact and not unasked.ours


def test_a_stranger_under_the_same_root_is_not_us(identity: SigningIdentity) -> None:
    data = sign_picture(plain("PNG"), "PNG", identity, FACTS)
    public_root = replace(identity, signer=("Another customer of the same authority", "x"))
    reading = read_manifest(data, "PNG", public_root)
    assert reading is not None and reading.intact and not reading.ours


def test_a_key_service_that_fails_is_named(identity: SigningIdentity) -> None:
    def sign(message: bytes) -> bytes:
        raise ConnectionError("the key service does not answer")

    with pytest.raises(NotMarked, match="the key service does not answer"):
        sign_picture(plain("PNG"), "PNG", replace(identity, sign=sign), FACTS)


def test_a_wrong_signature_never_becomes_a_file(identity: SigningIdentity) -> None:
    broken = replace(identity, sign=lambda message: bytes(64))
    with pytest.raises(NotMarked, match="signing key"):
        sign_picture(plain("PNG"), "PNG", broken, FACTS)


def test_a_time_stamp_service_that_is_not_there_is_named(identity: SigningIdentity) -> None:
    nobody = replace(identity, timestamp_url="http://127.0.0.1:9/")
    with pytest.raises(NotMarked, match=r"127\.0\.0\.1:9"):
        sign_picture(plain("PNG"), "PNG", nobody, FACTS)
