from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagine.core import Recipe
from imagine.errors import InvalidInput, NotMarked, OutputNotWritten
from imagine.provenance import AuditReference, MarkedImage, Marker, mark_image, read_recipe
from imagine.provenance.c2pa_manifest import read_manifest
from imagine.provenance.watermark_report import drawing

RECIPE = Recipe(
    prompt='smiling <b>& "quoted"</b>, ö 🌄',
    seed=2**63 - 1,
    num_inference_steps=4,
    guidance_scale=2.5,
    likeness=0.7,
    backend="fake",
    model_revision="fake-1",
    identity_fingerprint="ab" * 32,
    version="0.1.0",
)


@pytest.fixture
def marked() -> MarkedImage:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    return mark_image(pixels, RECIPE)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.webp"])
def test_a_saved_picture_gives_its_recipe_back(
    marked: MarkedImage, tmp_path: Path, name: str
) -> None:
    assert read_recipe(marked.save(tmp_path / name)) == RECIPE


def test_a_png_keeps_every_pixel(marked: MarkedImage, tmp_path: Path) -> None:
    with Image.open(marked.save(tmp_path / "a.png")) as picture:
        assert np.array_equal(np.asarray(picture), marked.pixels)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_every_file_says_it_was_made_by_a_trained_model(
    marked: MarkedImage, tmp_path: Path, name: str
) -> None:
    with Image.open(marked.save(tmp_path / name)) as picture:
        packet = picture.info["xmp"]
    assert b"digitalsourcetype/trainedAlgorithmicMedia<" in packet


def test_a_sheet_is_marked_as_a_composite_without_a_recipe(
    marked: MarkedImage, tmp_path: Path
) -> None:
    path = mark_image(marked.pixels, None).save(tmp_path / "sheet.png")
    with Image.open(path) as picture:
        assert b"compositeWithTrainedAlgorithmicMedia" in picture.info["xmp"]
    with pytest.raises(InvalidInput, match="carries no recipe"):
        read_recipe(path)


@pytest.mark.parametrize("name", ["a.gif", "a", "a.exe"])
def test_another_ending_is_refused_naming_png(
    marked: MarkedImage, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInput, match=r"\.png"):
        marked.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(marked: MarkedImage, tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritten, match=r"no folder.*missing"):
        marked.save(tmp_path / "missing" / "a.png")


def test_a_folder_is_not_replaced_by_a_picture(marked: MarkedImage, tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputNotWritten, match="is a folder"):
        marked.save(tmp_path / "a.png")


def test_an_existing_file_is_left_alone_unless_told(marked: MarkedImage, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("mine")
    with pytest.raises(OutputNotWritten, match="exists already"):
        marked.save(path, overwrite=False)
    assert path.read_text() == "mine"
    assert read_recipe(marked.save(path)) == RECIPE


def test_a_full_disk_leaves_nothing_and_keeps_the_old_file(
    marked: MarkedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputNotWritten, match="No space left on device"):
        marked.save(path)
    assert [item.name for item in tmp_path.iterdir()] == ["a.png"]
    assert path.read_text() == "old"


def test_an_interrupted_write_leaves_nothing(
    marked: MarkedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        marked.save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "no file"), (b"hello", "could not be read"), (b"\x89PNG\r\n\x1a\n", "could not be")],
)
def test_what_is_not_a_picture_is_refused(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=sentence):
        read_recipe(path)


@pytest.mark.parametrize("change", [{"seed": "7"}, {"likeness": None}, {"prompt": 3}])
def test_a_damaged_recipe_is_refused(
    marked: MarkedImage, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = replace(marked, recipe=replace(RECIPE, **change)).save(tmp_path / "a.png")
    with pytest.raises(InvalidInput, match="damaged"):
        read_recipe(path)


def test_neither_pixels_nor_prompt_show_in_a_repr(marked: MarkedImage) -> None:
    assert "smiling" not in repr(marked) and "array" not in repr(marked)


SUFFIXES = [".png", ".jpg", ".webp"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_sealed_file_has_signature_watermark_xmp_and_recipe(
    sealed: MarkedImage, marker: Marker, marks: Path, tmp_path: Path, suffix: str
) -> None:
    path = sealed.save(tmp_path / f"a{suffix}")
    with Image.open(path) as picture:
        xmp, pixels = picture.info["xmp"], np.asarray(picture.convert("RGB"))
        kind = picture.format or ""
    reading = read_manifest(path.read_bytes(), kind, marker.identity)
    found = marker.watermark.read(pixels)
    assert reading and reading.ours and reading.intact and reading.facts
    assert (reading.facts.record, reading.facts.policy_sha256) == (42, "cd" * 32)
    assert found and found.record == 42
    assert b"digitalsourcetype/trainedAlgorithmicMedia<" in xmp
    assert marker.identity.name.encode() in xmp
    assert b"imagine:record>42<" in xmp
    assert read_recipe(path, marks).prompt == "on the moon"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_shared_file_tells_neither_the_prompt_nor_who_it_is(
    sealed: MarkedImage, tmp_path: Path, suffix: str
) -> None:
    private = replace(sealed, recipe=replace(RECIPE, identity_fingerprint="0badface" * 8))
    data = private.to_bytes(suffix)
    for word in (b"smiling", b"quoted", b"0badface", b"num_inference_steps"):
        assert word not in data
    with pytest.raises(InvalidInput, match="only the installation that made the picture"):
        read_recipe(data, tmp_path / "somebody else")


def test_two_files_of_one_recipe_do_not_resemble_each_other(sealed: MarkedImage) -> None:
    shut = [re.search(rb"sealedRecipe>(.*?)<", sealed.to_bytes(".jpg")) for _ in range(2)]
    assert shut[0] and shut[1] and len(shut[0][1]) == len(shut[1][1]) and shut[0][1] != shut[1][1]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_person_may_ask_for_the_recipe_in_their_own_copy(
    sealed: MarkedImage, marker: Marker, tmp_path: Path, suffix: str
) -> None:
    data = sealed.to_bytes(suffix, "open")
    assert read_recipe(data, tmp_path / "no keys").prompt == "on the moon"
    kind = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}[suffix]
    reading = read_manifest(data, kind, marker.identity)
    assert reading and reading.intact and reading.ours


def test_a_file_may_be_without_any_recipe(sealed: MarkedImage, marks: Path) -> None:
    with pytest.raises(InvalidInput, match="carries no recipe"):
        read_recipe(sealed.to_bytes(".png", "none"), marks)
    with pytest.raises(InvalidInput, match="none, sealed, open"):
        sealed.to_bytes(".png", "loud")


def test_a_recipe_is_never_sealed_without_a_key(marked: MarkedImage) -> None:
    with pytest.raises(InvalidInput, match="no key to seal"):
        marked.to_bytes(".png", "sealed")


def test_a_recipe_saved_as_json_is_read_like_a_picture(tmp_path: Path) -> None:
    told = json.dumps({**asdict(RECIPE), "object": "recipe"}).encode()
    (tmp_path / "recipe.json").write_bytes(told)
    assert read_recipe(told) == read_recipe(tmp_path / "recipe.json") == RECIPE


def test_a_sealed_sheet_is_signed_as_a_composite(marker: Marker) -> None:
    sheet = mark_image(drawing(2, 128), None, marker, AuditReference(1, "", ""))
    reading = read_manifest(sheet.to_bytes(".png"), "PNG", marker.identity)
    assert reading and reading.facts
    assert reading.facts.source_type == "compositeWithTrainedAlgorithmicMedia"


def test_a_marker_without_an_audit_entry_is_refused_and_the_reverse(marker: Marker) -> None:
    audit = AuditReference(1, "", "")
    for given in ({"marker": marker}, {"audit": audit}):
        with pytest.raises(InvalidInput, match="both or neither"):
            mark_image(drawing(2, 128), RECIPE, **given)


def test_a_picture_that_cannot_be_signed_is_not_written(
    sealed: MarkedImage, tmp_path: Path
) -> None:
    assert sealed.seal is not None
    identity = replace(sealed.seal.identity, sign=lambda message: b"")
    broken = replace(sealed, seal=replace(sealed.seal, identity=identity))
    with pytest.raises(NotMarked):
        broken.save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
