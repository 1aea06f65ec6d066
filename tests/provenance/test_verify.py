from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from imagine.core import ImageArray
from imagine.errors import UnreadablePhoto
from imagine.provenance import (
    AuditReference,
    HashRegistry,
    MarkedImage,
    Marker,
    Provenance,
    ProvenanceReport,
    Verifier,
    WatermarkReading,
    mark_image,
    open_marker,
    open_verifier,
    perceptual_hash,
    verify,
)
from imagine.provenance.watermark_report import drawing
from tests.provenance.conftest import AUDIT, RECIPE

SUFFIXES = [".png", ".jpg", ".webp"]


def encoded(pixels: ImageArray, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> ImageArray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def jpeg_segments(data: bytes, marker: int) -> list[bytes]:
    """The whole segments of one kind before the scan."""
    found, place = [], 2
    while data[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, place + 2)
        if data[place + 1] == marker:
            found.append(data[place : place + 2 + length])
        place += 2 + length
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_left_here_is_untouched(
    verifier: Verifier, sealed: MarkedImage, tmp_path: Path, suffix: str
) -> None:
    for source in (sealed.to_bytes(suffix), sealed.save(tmp_path / f"a{suffix}")):
        report = verifier.verify(source)
        assert report.verdict is Provenance.UNTOUCHED
        assert (report.record, report.manifest, report.watermark_found) == (42, "ours", True)


def test_a_wrong_ending_does_not_matter(
    verifier: Verifier, sealed: MarkedImage, tmp_path: Path
) -> None:
    path = tmp_path / "picture.txt"
    path.write_bytes(sealed.to_bytes(".webp"))
    assert verifier.verify(path).verdict is Provenance.UNTOUCHED


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_saved_again_elsewhere_it_is_ours_without_metadata(
    verifier: Verifier, sealed: MarkedImage, kind: str
) -> None:
    report = verifier.verify(encoded(sealed.pixels, kind))
    assert report.verdict is Provenance.STRIPPED
    assert report.record == 42 and report.manifest == "none"


def test_a_mirrored_crop_is_still_ours_and_says_so(verifier: Verifier, sealed: MarkedImage) -> None:
    crop = np.ascontiguousarray(sealed.pixels[8:240, 248:10:-1])
    report = verifier.verify(encoded(crop))
    assert report.verdict is Provenance.STRIPPED
    assert "mirrored" in " ".join(report.sentences) and "cut off" in " ".join(report.sentences)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bytes_changed_under_our_signature_are_an_edit(
    verifier: Verifier, sealed: MarkedImage, suffix: str
) -> None:
    report = verifier.verify(sealed.to_bytes(suffix) + b"appended")
    assert report.verdict is Provenance.EDITED and report.manifest == "ours, broken"


def test_an_edit_that_lost_the_watermark_is_known_by_the_signed_likeness(
    marks: Path, sealed: MarkedImage
) -> None:
    blind = replace(open_verifier(marks), watermark=None)
    assert blind.verify(sealed.to_bytes(".jpg") + b"more").verdict is Provenance.EDITED


def test_somebody_elses_signature_over_our_watermark_is_an_edit(
    verifier: Verifier, sealed: MarkedImage, tmp_path: Path
) -> None:
    stranger = open_marker(tmp_path / "marks", badge=None)[0]

    class Silent:
        def embed(self, pixels: ImageArray, record: int) -> ImageArray:
            return pixels

        def read(self, pixels: ImageArray) -> WatermarkReading | None:
            return None

    theirs = mark_image(sealed.pixels, RECIPE, replace(stranger, watermark=Silent()), AUDIT)
    report = verifier.verify(theirs.to_bytes(".png"))
    assert report.verdict is Provenance.EDITED and report.manifest == "another's"


def test_our_signature_moved_onto_another_picture_is_forged(
    verifier: Verifier, sealed: MarkedImage
) -> None:
    manifest = b"".join(jpeg_segments(sealed.to_bytes(".jpg"), 0xEB))
    victim = encoded(drawing(0, 256))
    report = verifier.verify(victim[:2] + manifest + victim[2:])
    assert report.verdict is Provenance.FORGED and report.manifest == "ours, broken"


def test_metadata_alone_naming_us_is_forged(verifier: Verifier) -> None:
    for suffix in SUFFIXES:
        report = verifier.verify(mark_image(drawing(0, 128), RECIPE).to_bytes(suffix))
        assert report.verdict is Provenance.FORGED and report.record is None
        assert report.says_generated


def test_a_manifest_that_names_this_installation_but_is_signed_elsewhere_is_forged(
    verifier: Verifier, marker: Marker, tmp_path: Path
) -> None:
    stranger = open_marker(tmp_path / "marks")[0]
    liar = replace(stranger, identity=replace(stranger.identity, name=marker.identity.name))
    report = verifier.verify(mark_image(drawing(0, 128), RECIPE, liar, AUDIT).to_bytes(".png"))
    assert report.verdict is Provenance.FORGED


def test_a_watermark_copied_onto_another_picture_is_forged(
    verifier: Verifier, marker: Marker, sealed: MarkedImage
) -> None:
    hashes = HashRegistry([(42, perceptual_hash(sealed.pixels))])
    copied = marker.watermark.embed(drawing(4, 256), 42)
    knowing = replace(verifier, hashes=hashes)
    assert knowing.verify(encoded(copied)).verdict is Provenance.FORGED
    assert knowing.verify(encoded(sealed.pixels)).verdict is Provenance.STRIPPED
    assert knowing.verify(encoded(sealed.pixels[:, ::-1])).verdict is Provenance.STRIPPED


def test_a_picture_that_lost_every_mark_is_known_by_its_looks(
    verifier: Verifier, sealed: MarkedImage
) -> None:
    hashes = HashRegistry([(42, perceptual_hash(sealed.pixels))])
    # As if the watermark were gone: what removes it for certain removes the likeness too.
    knowing = replace(verifier, hashes=hashes, watermark=None)
    report = knowing.verify(encoded(sealed.pixels, quality=60))
    assert report.verdict is Provenance.EDITED and report.record == 42
    assert not report.watermark_found


def test_any_other_picture_is_not_ours(verifier: Verifier) -> None:
    report = verifier.verify(encoded(drawing(0, 128)))
    assert report == ProvenanceReport(
        Provenance.NOT_OURS, report.sentences, None, "none", False, False
    )


def test_another_installations_picture_is_not_ours_but_said_to_be_generated(
    verifier: Verifier, tmp_path: Path
) -> None:
    other = open_marker(tmp_path / "marks")[0]
    data = mark_image(drawing(0, 128), RECIPE, other, AuditReference(1, "", "")).to_bytes(".jpg")
    report = verifier.verify(data)
    assert report.verdict is Provenance.NOT_OURS and report.says_generated
    assert "another installation" in " ".join(report.sentences)


def test_without_keys_nothing_is_ours_and_none_are_made(
    sealed: MarkedImage, tmp_path: Path
) -> None:
    report = open_verifier(tmp_path / "marks").verify(sealed.to_bytes(".png"))
    assert report.verdict is Provenance.NOT_OURS and not list(tmp_path.iterdir())
    assert verify(encoded(drawing(0, 64))).verdict is Provenance.NOT_OURS


def test_the_answer_says_nothing_of_the_person_or_the_prompt(
    verifier: Verifier, sealed: MarkedImage
) -> None:
    assert sealed.recipe is not None
    told = str(verifier.verify(sealed.to_bytes(".png")))
    assert sealed.recipe.prompt not in told and sealed.recipe.identity_fingerprint not in told


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (5000, 2)])
def test_strange_sizes_get_a_verdict(verifier: Verifier, size: tuple[int, int]) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        data = encoded(np.zeros((*size, 3), np.uint8), kind)
        assert verifier.verify(data).verdict is Provenance.NOT_OURS


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16", "CMYK"])
def test_every_kind_of_pixels_gets_a_verdict(verifier: Verifier, mode: str) -> None:
    picture = Image.new(mode, (80, 70))
    if mode == "P":
        picture.info["transparency"] = bytes(range(200))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert verifier.verify(buffer.getvalue()).verdict is Provenance.NOT_OURS


def test_the_several_pictures_of_a_telephones_file_count_as_one_jpeg(
    verifier: Verifier, sealed: MarkedImage
) -> None:
    buffer = io.BytesIO()
    second = Image.new("RGB", (64, 64))
    Image.fromarray(sealed.pixels).save(buffer, "MPO", save_all=True, append_images=[second])
    assert verifier.verify(buffer.getvalue()).verdict is Provenance.STRIPPED


def test_a_marked_picture_of_40_megapixels_is_read(verifier: Verifier, sealed: MarkedImage) -> None:
    large = Image.fromarray(sealed.pixels).resize((6320, 6320), Image.Resampling.BILINEAR)
    assert verifier.verify(encoded(np.asarray(large))).record == 42


def test_a_picture_of_too_many_pixels_is_refused_from_its_header(verifier: Verifier) -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    bomb += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    with pytest.raises(UnreadablePhoto):
        verifier.verify(bomb + struct.pack(">I", zlib.crc32(b"IDAT")))


def test_huge_metadata_gets_a_verdict_or_an_error(verifier: Verifier) -> None:
    for size in (900_000, 3_000_000):
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", "<a>" * (size // 3), zip=True)
        outcome = verdict_or_error(verifier, encoded(drawing(1, 64), "PNG", pnginfo=text))
        assert outcome in ("not ours", "error")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no PNG"),
        (b"hello", "no PNG"),
        (b"GIF89a\1\0\1\0\0\0\0;", "no PNG"),
        (None, "no file"),
    ],
)
def test_what_is_no_picture_is_refused(
    verifier: Verifier, tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadablePhoto, match=sentence):
        verifier.verify(path)
    with pytest.raises(UnreadablePhoto):
        verifier.verify(tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_half_a_picture_is_refused_or_judged(
    verifier: Verifier, sealed: MarkedImage, suffix: str, share: float
) -> None:
    data = sealed.to_bytes(suffix)
    assert verdict_or_error(verifier, data[: int(len(data) * share)]) != "made here, untouched"


def verdict_or_error(verifier: Verifier, data: bytes) -> str:
    try:
        return verifier.verify(data).verdict.value
    except UnreadablePhoto:
        return "error"


@pytest.fixture(scope="module")
def small_files(marker: Marker) -> dict[str, bytes]:
    small = mark_image(drawing(2, 128), RECIPE, marker, AUDIT)
    return {suffix: small.to_bytes(suffix) for suffix in SUFFIXES}


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    suffix=st.sampled_from(SUFFIXES),
    changes=st.lists(
        st.tuples(
            st.sampled_from(["flip", "delete", "insert", "cut", "repeat"]),
            st.floats(0, 1, exclude_max=True),
            st.binary(min_size=1, max_size=40),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_no_damage_crashes_the_check_or_passes_for_untouched_with_other_pixels(
    marks: Path,
    small_files: dict[str, bytes],
    suffix: str,
    changes: list[tuple[str, float, bytes]],
) -> None:
    # Without the watermark: its search is the slow part and only ever sees pixels.
    verifier = replace(open_verifier(marks), watermark=None)
    whole = small_files[suffix]
    data = bytearray(whole)
    for what, where, content in changes:
        place = int(where * len(data))
        if what == "flip":
            data[place : place + len(content)] = content[: len(data) - place]
        elif what == "delete":
            del data[place : place + len(content)]
        elif what == "insert":
            data[place:place] = content
        elif what == "cut":
            del data[max(1, place) :]
        else:
            data[place:place] = data[place : place + 2000]
    outcome = verdict_or_error(verifier, bytes(data))
    if outcome == "made here, untouched":
        assert np.array_equal(decoded(whole), decoded(bytes(data)))
