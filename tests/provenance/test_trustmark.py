from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from imagine.core import ImageArray
from imagine.errors import CorruptWeights, InvalidInput, MissingWeights, WatermarkNotKept
from imagine.models.trustmark import SecretReader, SecretWriter, WriterShape
from imagine.provenance import (
    WATERMARKS,
    AuditReference,
    HashRegistry,
    PhotoOrigin,
    Provenance,
    mark_image,
    open_marker,
    open_verifier,
    perceptual_hash,
    photo_origin,
)
from imagine.provenance import trustmark as room
from imagine.provenance.trustmark import CARD, READER, WRITER, Card, TrustMarkWatermark, convert
from imagine.provenance.watermark import LICENCES, WEIGHTS_FOLDER, open_learned
from imagine.provenance.watermark_report import drawing, psnr
from tests.provenance.tiny_trustmark import Looker, Painter, write_checkpoints

KEY = b"k" * 32


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fetched")
    write_checkpoints(folder)
    return folder


@pytest.fixture
def weights(checkpoints: Path, tmp_path: Path) -> Path:
    convert(checkpoints, tmp_path / "trustmark", published_only=False)
    return tmp_path / "trustmark"


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> Iterator[TrustMarkWatermark]:
    """The backend with a pair of doubles that can write and read."""
    shape = Card("test", WriterShape(), (), True, 245, 1.0, False, {})
    monkeypatch.setattr(room, "_opened", lambda folder: (shape, Painter(), Looker()))
    yield TrustMarkWatermark(KEY)


def jpeg(pixels: ImageArray, quality: int) -> ImageArray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_the_published_layout_is_read_without_running_what_is_inside(weights: Path) -> None:
    card = json.loads((weights / CARD).read_text())
    assert card["variant"] == "Q" and card["is_deep"] and card["reading_side"] == 245
    assert card["writer"] == {"width": 8, "levels": 2, "middle": 1, "activation": "silu"}
    writer, reader = load_file(weights / WRITER), load_file(weights / READER)
    assert "secret2image.dense.weight" in writer and "middle.0.model.0.model.1.conv.bias" in writer
    assert "layer4.2.bn3.num_batches_tracked" in reader and "layer1.0.downsample.0.weight" in reader
    assert not any("discriminator" in name for name in writer | reader)


def test_the_networks_have_the_published_names_and_sizes() -> None:
    """Counted in the package trustmark 0.9.2 and the ResNets of torchvision it takes."""
    writer, deep = SecretWriter(WriterShape()), SecretReader()
    shallow = SecretReader((2, 2, 2, 2), is_deep=False)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (writer, deep, shallow)]
    assert sizes == [8642179, 23712932, 11227812]
    assert [len(network.state_dict()) for network in (deep, shallow)] == [320, 122]


def test_a_compact_reader_is_known_by_its_blocks(tmp_path: Path) -> None:
    write_checkpoints(tmp_path / "c", variant="C", is_deep=False)
    card = convert(tmp_path / "c", tmp_path / "out", published_only=False)
    assert (card.variant, card.is_deep, card.depths) == ("C", False, (2, 2, 2, 2))
    TrustMarkWatermark(KEY, tmp_path / "out")


def test_other_files_than_the_published_ones_are_refused(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptWeights, match="MD5"):
        convert(checkpoints, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("canary"),))


def test_a_checkpoint_that_would_run_code_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoints(tmp_path / "evil")
    torch.save({"state_dict": {"encoder.a": _Evil()}}, tmp_path / "evil" / "encoder_Q.ckpt")
    with pytest.raises(CorruptWeights, match="could run code"):
        convert(tmp_path / "evil", tmp_path / "out", published_only=False)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("missing", ["encoder_Q.ckpt", "decoder_Q.ckpt", "trustmark_Q.yaml"])
def test_half_a_set_is_refused_with_what_a_whole_one_is(tmp_path: Path, missing: str) -> None:
    write_checkpoints(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InvalidInput, match="whole set"):
        convert(tmp_path, tmp_path / "out", published_only=False)


@pytest.mark.parametrize(
    "text", ["", "model: 3", "model: {params: {secret_encoder_config: {target: x.Other}}}"]
)
def test_a_description_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    write_checkpoints(tmp_path)
    (tmp_path / "trustmark_Q.yaml").write_text(text)
    with pytest.raises(CorruptWeights, match="describe"):
        convert(tmp_path, tmp_path / "out", published_only=False)


def test_missing_weights_are_announced_with_licence_and_command(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights) as refused:
        open_learned("trustmark", KEY, tmp_path)
    words = str(refused.value)
    assert "MIT" in words and "pip install trustmark" in words
    assert (
        "python -m imagine.provenance.trustmark" in words and str(tmp_path / "trustmark") in words
    )
    assert LICENCES["trustmark"].weights == "MIT" and set(LICENCES) == set(WATERMARKS.names())


@pytest.mark.parametrize("name", [WRITER, READER, CARD])
def test_weights_that_were_changed_since_are_refused(weights: Path, name: str) -> None:
    content = bytearray((weights / name).read_bytes())
    content[len(content) // 2] ^= 1
    (weights / name).write_bytes(content)
    with pytest.raises(CorruptWeights):
        TrustMarkWatermark(KEY, weights)


def test_networks_that_cannot_write_keep_the_picture_inside(weights: Path) -> None:
    """Random weights load like real ones and mark nothing: then nothing may leave."""
    watermark = TrustMarkWatermark(KEY, weights)
    assert repr(KEY) not in repr(watermark)
    assert watermark.read(drawing(2, 256)) is None
    with pytest.raises(WatermarkNotKept, match="learned"):
        watermark.embed(drawing(2, 256), 5)


@pytest.mark.parametrize("size", [128, 256, 512])
def test_a_number_is_written_and_read_at_any_size(working: TrustMarkWatermark, size: int) -> None:
    pixels = drawing(3, size)
    before = pixels.copy()
    marked = working.embed(pixels, 4_000_000_001)
    assert (pixels == before).all() and psnr(pixels, marked) > 32
    for seen in (marked, jpeg(marked, 85)):
        found = working.read(seen)
        assert found is not None and found.record == 4_000_000_001 and not found.is_whole
    assert working.read(pixels) is None


def test_mirrored_and_turned_copies_are_read(working: TrustMarkWatermark) -> None:
    marked = working.embed(drawing(3, 256), 77)
    for mirrored in (False, True):
        for turns in range(4):
            copy = np.rot90(marked, -turns)
            found = working.read(np.ascontiguousarray(copy[:, ::-1] if mirrored else copy))
            assert found is not None and found.record == 77
            assert found.mirrored == mirrored


def test_of_a_long_picture_the_middle_square_is_marked(working: TrustMarkWatermark) -> None:
    pixels = np.concatenate([drawing(n, 192) for n in (1, 2, 3)], axis=1)
    marked = working.embed(pixels, 8)
    assert (marked[:, :192] == pixels[:, :192]).all() and (marked != pixels).any()
    found = working.read(marked)
    assert found is not None and found.record == 8


def test_another_key_reads_nothing_and_a_wrong_size_or_number_is_refused(
    working: TrustMarkWatermark,
) -> None:
    marked = working.embed(drawing(3, 256), 9)
    assert TrustMarkWatermark(b"z" * 32).read(marked) is None
    with pytest.raises(InvalidInput, match="64"):
        working.embed(drawing(3, 256)[:40, :40], 1)
    with pytest.raises(InvalidInput, match="Record"):
        working.embed(drawing(3, 256), 2**32)


def test_a_service_that_names_it_without_weights_marks_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="pip install"):
        open_marker(tmp_path / "marks", learned="trustmark")
    open_marker(tmp_path / "marks")
    with pytest.raises(MissingWeights):
        open_verifier(tmp_path / "marks", learned="trustmark")


class TestBesideOurs:
    """Both marks in one picture, both leading to the same audit record."""

    @pytest.fixture
    def marked(self, working: TrustMarkWatermark, tmp_path: Path) -> tuple[Path, ImageArray]:
        (tmp_path / WEIGHTS_FOLDER / "trustmark").mkdir(parents=True)
        marker, _ = open_marker(tmp_path / "marks", learned="trustmark")
        picture = mark_image(drawing(3, 256), None, marker, AuditReference(31, "", ""))
        assert marker.learned is not None
        for watermark in (marker.watermark, marker.learned):
            found = watermark.read(picture.pixels)
            assert found is not None and found.record == 31
        return tmp_path / "marks", picture.pixels

    def as_png(self, pixels: ImageArray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    def test_it_is_read_wherever_its_weights_lie_though_nobody_names_it(
        self, marked: tuple[Path, ImageArray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("IMAGINE_LEARNED_WATERMARK", raising=False)
        verifier = open_verifier(marked[0])
        assert isinstance(verifier.learned, TrustMarkWatermark)
        blind = replace(verifier, watermark=None)
        assert photo_origin(marked[1], blind) is PhotoOrigin.OWN_OUTPUT

    def test_alone_it_is_believed_of_a_picture_that_looks_like_ours(
        self, marked: tuple[Path, ImageArray]
    ) -> None:
        known = HashRegistry([(31, perceptual_hash(marked[1]))])
        verifier = replace(open_verifier(marked[0], known), watermark=None)
        report = verifier.verify(self.as_png(marked[1]))
        assert (report.verdict, report.record) == (Provenance.EDITED, 31)
        assert report.watermark_found and "second, learned" in report.sentences[1]

    def test_copied_onto_another_picture_it_proves_nothing(
        self, marked: tuple[Path, ImageArray]
    ) -> None:
        verifier = open_verifier(marked[0], HashRegistry([(31, perceptual_hash(marked[1]))]))
        assert verifier.learned is not None
        stranger = verifier.learned.embed(drawing(2, 256), 31)  # as who read the bits could do
        report = verifier.verify(self.as_png(stranger))
        assert (report.verdict, report.record) == (Provenance.NOT_OURS, None)
        assert not report.watermark_found
        assert any("anybody can copy" in sentence for sentence in report.sentences)
