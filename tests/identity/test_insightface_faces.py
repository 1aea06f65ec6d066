import sys
from pathlib import Path

import pytest

from imagine.errors import CorruptWeights, MissingExtra, MissingWeights
from imagine.identity.insightface_faces import (
    InsightFaceDetector,
    InsightFaceEncoder,
    find_pack,
    pack_licence,
)
from imagine.settings import Settings
from tests.identity.tiny_pack import bright_cells, build_tiny_pack


@pytest.fixture
def empty_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


def test_boxes_and_landmarks_are_those_of_the_detector(settings: Settings) -> None:
    (face,) = InsightFaceDetector.load(settings).detect(bright_cells((10, 8)))
    assert face.box == pytest.approx((256, 192, 384, 320), abs=0.5)
    assert face.landmarks[2].tolist() == pytest.approx([320, 256 + 0.3 * 32], abs=0.5)


def test_a_missing_pack_names_the_command_and_makes_nothing(empty_home: Path) -> None:
    with pytest.raises(MissingWeights, match=r"insightface-cli model\.download buffalo_l"):
        InsightFaceDetector.load(Settings(insightface_pack=None))
    assert list(empty_home.iterdir()) == []


def test_an_empty_pack_folder_counts_as_missing(empty_home: Path) -> None:
    folder = empty_home / "pack"
    folder.mkdir()
    with pytest.raises(MissingWeights, match="pack"):
        InsightFaceEncoder.load(Settings(insightface_pack=folder))


@pytest.mark.parametrize("inner", ["", "antelopev2"])
def test_a_pack_is_found_by_name_where_insightface_keeps_it(empty_home: Path, inner: str) -> None:
    pack = build_tiny_pack(empty_home / ".insightface" / "models" / "antelopev2" / inner)
    assert find_pack(Settings(insightface_pack=Path("antelopev2"))) == pack


def test_a_pack_without_recogniser_is_refused(tmp_path: Path) -> None:
    pack = build_tiny_pack(tmp_path / "half")
    (pack / "recogniser.onnx").unlink()
    with pytest.raises(CorruptWeights, match="no recognition model"):
        InsightFaceEncoder.load(Settings(insightface_pack=pack))


def test_a_pack_without_detector_is_refused(tmp_path: Path) -> None:
    pack = build_tiny_pack(tmp_path / "half")
    (pack / "detector.onnx").unlink()
    with pytest.raises(CorruptWeights, match="no detection model"):
        InsightFaceDetector.load(Settings(insightface_pack=pack))


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    pack = build_tiny_pack(tmp_path / "damaged")
    (pack / "detector.onnx").write_bytes(b"\x00" * 100)
    with pytest.raises(CorruptWeights, match="damaged"):
        InsightFaceDetector.load(Settings(insightface_pack=pack))


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("buffalo_l", "non-commercial"),
        ("antelopev2", "non-commercial"),
        ("AuraFace", "Apache-2.0"),
        ("my_pack", "unknown"),
    ],
)
def test_the_licence_of_a_pack_is_said(name: str, licence: str) -> None:
    assert licence in pack_licence(Path("packs") / name)


def test_missing_insightface_names_its_pip_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "insightface.app", None)
    with pytest.raises(MissingExtra, match="pip install"):
        InsightFaceDetector.load(settings)
